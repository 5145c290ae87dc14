# Included by CMake after each project() of llama.cpp: `.cargo/config.toml` names this file in CMAKE_PROJECT_INCLUDE.
#
# GCC before 11.5, 12.4 and 13.3 (Debian 12 has 12.2) tells its optimizer that `_tile_loadconfig` reads 8 bytes where the
# instruction reads 64 (GCC bug 114098). ggml's tile shapes are then optimized away, and the first matrix product on a
# processor with AMX ends the process with an illegal instruction.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:SHELL:-include \"${CMAKE_CURRENT_LIST_DIR}/amx_tile_config.h\">")
endif()

# Plug-ins share data structures with the program that loads them, so they say what they were built from: a symbol whose
# name has the version of llama-cpp-sys-2 (crates/llama/src/plugins/library.rs looks for it).
if(BUILD_SHARED_LIBS AND NOT APPLE AND NOT WIN32)
  if(CMAKE_SOURCE_DIR MATCHES "llama-cpp-sys-2-([0-9]+)\\.([0-9]+)\\.([0-9]+)")
    set(INGLE_GGML_STAMP "${CMAKE_MATCH_1}_${CMAKE_MATCH_2}_${CMAKE_MATCH_3}")
  endif()
  if(INGLE_GGML_STAMP)
    add_link_options("LINKER:--defsym=ingle_ggml_${INGLE_GGML_STAMP}=1")
  endif()
endif()

# In a plug-in of a CPU variant the question that ggml asks before each operation leads to src/operations.cpp, as build.rs
# does it where the processor code is part of the program. The targets are there when ggml's folder is done.
if(PROJECT_NAME STREQUAL "ggml" AND BUILD_SHARED_LIBS AND CMAKE_SYSTEM_NAME STREQUAL "Linux")
  set(INGLE_OPERATIONS "${CMAKE_CURRENT_LIST_DIR}/../src/operations.cpp")
  function(ingle_lead_operations)
    get_property(targets DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}/src" PROPERTY BUILDSYSTEM_TARGETS)
    foreach(target IN LISTS targets)
      get_target_property(type ${target} TYPE)
      if(target MATCHES "^ggml-cpu" AND type MATCHES "^(MODULE|SHARED)_LIBRARY$")
        target_sources(${target} PRIVATE "${INGLE_OPERATIONS}")
        target_link_options(${target} PRIVATE
          "LINKER:--wrap=ggml_cpu_extra_compute_forward,--wrap=ggml_cpu_extra_work_size")
      endif()
    endforeach()
  endfunction()
  cmake_language(DEFER CALL ingle_lead_operations)
endif()
