# Included by CMake after each project() of llama.cpp: `.cargo/config.toml` names this file in CMAKE_PROJECT_INCLUDE.
#
# GCC before 11.5, 12.4 and 13.3 (Debian 12 has 12.2) tells its optimizer that `_tile_loadconfig` reads 8 bytes where the
# instruction reads 64 (GCC bug 114098). ggml's tile shapes are then optimized away, and the first matrix product on a
# processor with AMX ends the process with an illegal instruction.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:SHELL:-include \"${CMAKE_CURRENT_LIST_DIR}/amx_tile_config.h\">")
endif()
