# SPDX-License-Identifier: Apache-2.0
# metal_emulated: Metal's kernels as C++ on the emulator, found by name through tests/simt/metal_registry.h. An object
# library, since nothing but their registration refers to the kernels.
file(GLOB metal_kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/metal/kernels/*.metal)
include(${PROJECT_SOURCE_DIR}/tests/simt/emulator.cmake)
# MSL's attributes, and the parameters that all kernels have.
set_source_files_properties(${metal_kernels} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS
                            "-xc++;-Wno-attributes;-Wno-unknown-pragmas;-Wno-unused-parameter")
add_library(metal_emulated OBJECT ${metal_kernels})
target_include_directories(metal_emulated PRIVATE ${PROJECT_SOURCE_DIR}/csrc ${PROJECT_SOURCE_DIR}/metal
                           ${PROJECT_SOURCE_DIR}/tests)
target_compile_definitions(metal_emulated PRIVATE TRINE_SIMT)
