// See compiler_fixes.cmake: the AMX intrinsic with the size that the instruction reads.
#pragma once

#if defined(__AMX_TILE__)
#include <immintrin.h>

static inline __attribute__((always_inline, unused)) void ingle_tile_loadconfig(const void *config) {
    __asm__ volatile("ldtilecfg\t%X0" : : "m"(*static_cast<const unsigned char(*)[64]>(config)));
}

#undef _tile_loadconfig
#define _tile_loadconfig ingle_tile_loadconfig
#endif
