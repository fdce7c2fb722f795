# SPDX-License-Identifier: Apache-2.0
# trine_emulator: the machine that both emulated GPUs run on.
include_guard()
file(GLOB emulator CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/simt/*.cc)
list(FILTER emulator EXCLUDE REGEX "/(test_|planted)[^/]*$")
add_library(trine_emulator OBJECT ${emulator})
target_include_directories(trine_emulator PRIVATE ${PROJECT_SOURCE_DIR}/csrc ${PROJECT_SOURCE_DIR}/tests)
target_compile_definitions(trine_emulator PRIVATE TRINE_SIMT)
set_target_properties(trine_emulator PROPERTIES UNITY_BUILD ON)
