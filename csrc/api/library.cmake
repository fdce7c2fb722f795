# SPDX-License-Identifier: Apache-2.0
# The shared library, which exports the C functions of trine_c.h and nothing else, and what find_package(trine) and
# pkg-config read. In a wheel all of it lies in trine/cpp, where trine.cmake_prefix() points.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

if(SKBUILD)
  set(trine_prefix trine/cpp)
  set(trine_lib ${trine_prefix}/lib)
  set(trine_bin ${trine_prefix}/bin)
  set(trine_include ${trine_prefix}/include)
else()
  set(trine_lib ${CMAKE_INSTALL_LIBDIR})
  set(trine_bin ${CMAKE_INSTALL_BINDIR})
  set(trine_include ${CMAKE_INSTALL_INCLUDEDIR})
endif()

add_library(trine SHARED $<TARGET_OBJECTS:trine_core> $<TARGET_OBJECTS:trine_api>)
add_library(trine::trine ALIAS trine)
set_target_properties(trine PROPERTIES LINKER_LANGUAGE CXX)
target_compile_features(trine INTERFACE cxx_std_20)
target_compile_definitions(trine INTERFACE TRINE_SHARED)
target_include_directories(trine INTERFACE $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/csrc>
                                           $<INSTALL_INTERFACE:${trine_include}>)
target_link_libraries(trine PRIVATE Threads::Threads ${CMAKE_DL_LIBS})
if(NOT SKBUILD)  # a wheel holds no links, so one name has to do
  set_target_properties(trine PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
endif()
if(WIN32)  # trine.dll by every compiler; what it shows is what is declared TRINE_API
  set_target_properties(trine PROPERTIES PREFIX "")
elseif(APPLE)
  target_link_options(trine PRIVATE "-Wl,-exported_symbols_list,${CMAKE_CURRENT_SOURCE_DIR}/csrc/api/exports.txt")
elseif(UNIX)
  set(trine_map ${CMAKE_CURRENT_SOURCE_DIR}/csrc/api/exports.map)
  target_link_options(trine PRIVATE "-Wl,--version-script=${trine_map}")
  set_target_properties(trine PROPERTIES LINK_DEPENDS ${trine_map})
endif()

install(TARGETS trine EXPORT trineConfig
        LIBRARY DESTINATION ${trine_lib} ARCHIVE DESTINATION ${trine_lib} RUNTIME DESTINATION ${trine_bin})
install(FILES csrc/trine.h csrc/trine_text.h csrc/trine_c.h DESTINATION ${trine_include})
install(EXPORT trineConfig NAMESPACE trine:: DESTINATION ${trine_lib}/cmake/trine)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/trineConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/trineConfigVersion.cmake DESTINATION ${trine_lib}/cmake/trine)
# Found from where it lies, like the CMake package: the folder may be moved.
file(RELATIVE_PATH trine_headers /${trine_lib}/pkgconfig /${trine_include})
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/trine.pc "Name: trine
Description: Low-latency transformer inference
Version: ${PROJECT_VERSION}
Cflags: -I\${pcfiledir}/${trine_headers}
Libs: -L\${pcfiledir}/.. -ltrine
")
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/trine.pc DESTINATION ${trine_lib}/pkgconfig)
