# SPDX-License-Identifier: Apache-2.0
# The plugin for Apple's GPUs. It reaches Metal through dlopen alone, so that it compiles without an
# SDK and on any system; included by the main CMakeLists.txt.
file(GLOB metal_host CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cc)
file(GLOB metal_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/kernels/*.metal
     ${CMAKE_CURRENT_LIST_DIR}/kernels/*.h)
set(metal_embedded ${CMAKE_CURRENT_BINARY_DIR}/metal/embedded_sources.inc)
add_custom_command(
  OUTPUT ${metal_embedded}
  COMMAND ${CMAKE_COMMAND} -DFOLDER=${CMAKE_CURRENT_LIST_DIR} -DOUTPUT=${metal_embedded} -P
          ${CMAKE_CURRENT_LIST_DIR}/embed.cmake
  DEPENDS ${metal_sources} ${CMAKE_CURRENT_LIST_DIR}/embed.cmake)

add_library(trine_metal_host OBJECT ${metal_host} ${metal_embedded})
target_include_directories(trine_metal_host PRIVATE csrc metal ${CMAKE_CURRENT_BINARY_DIR}/metal)
trine_quick(trine_metal_host)
set(metal_objects $<TARGET_OBJECTS:trine_plugin_core> $<TARGET_OBJECTS:trine_metal_host>)
# SHARED, not MODULE: zig's linker for macOS knows no bundles, and dlopen takes either.
add_library(trine_metal SHARED ${metal_objects})
target_link_libraries(trine_metal PRIVATE Threads::Threads ${CMAKE_DL_LIBS})
if(APPLE)
  # A list, since zig's linker takes no -exported_symbol.
  target_link_options(trine_metal PRIVATE
                      -Wl,-exported_symbols_list,${CMAKE_CURRENT_SOURCE_DIR}/csrc/gpu/exports.txt)
else()
  set(plugin_exports ${CMAKE_CURRENT_SOURCE_DIR}/csrc/gpu/exports.map)
  target_link_options(trine_metal PRIVATE -Wl,--version-script=${plugin_exports})
  set_target_properties(trine_metal PROPERTIES LINK_DEPENDS ${plugin_exports})
endif()
if(TRINE_PYTHON AND TRINE_METAL)
  install(TARGETS trine_metal LIBRARY DESTINATION trine RUNTIME DESTINATION trine)
elseif(TRINE_LIBRARY AND TRINE_METAL)
  install(TARGETS trine_metal LIBRARY DESTINATION ${trine_lib} RUNTIME DESTINATION ${trine_bin})
endif()

if(TRINE_METAL_EMULATED)
  # Objective-C's runtime and Metal in one library, which runs the kernels on tests/simt's machine.
  include(tests/metal/emulated.cmake)
  file(GLOB fake_metal CONFIGURE_DEPENDS tests/metal/fake/*.cc)
  add_library(trine_fake_metal SHARED ${fake_metal} $<TARGET_OBJECTS:metal_emulated> $<TARGET_OBJECTS:trine_emulator>)
  target_include_directories(trine_fake_metal PRIVATE csrc metal tests)
  target_compile_definitions(trine_fake_metal PRIVATE TRINE_SIMT)
  target_link_libraries(trine_fake_metal PRIVATE Threads::Threads)
  set(fake_library "\"$<TARGET_FILE:trine_fake_metal>\"")
  target_compile_definitions(trine_metal_host PRIVATE TRINE_OBJC_LIBRARY=${fake_library}
                                                      TRINE_METAL_LIBRARY=${fake_library})
  add_dependencies(trine_metal trine_fake_metal)
  set_target_properties(trine_metal PROPERTIES LIBRARY_OUTPUT_DIRECTORY metal)
  add_executable(trine_metal_misuse ${metal_objects} tests/metal/misuse.cc)
  target_include_directories(trine_metal_misuse PRIVATE csrc metal)
  target_link_libraries(trine_metal_misuse PRIVATE trine_fake_metal Threads::Threads
                                                   ${CMAKE_DL_LIBS})
endif()
