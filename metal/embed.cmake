# SPDX-License-Identifier: Apache-2.0
# cmake -DFOLDER=metal -DOUTPUT=embedded_sources.inc -P embed.cmake
# The kernels and their headers as C++ string literals, for source.cc.
file(GLOB files ${FOLDER}/kernels/*.metal ${FOLDER}/kernels/*.h)
list(FILTER files EXCLUDE REGEX "/launch\\.h$")  # the host's
set(all "")
foreach(file IN LISTS files)
  file(RELATIVE_PATH name ${FOLDER} ${file})
  file(READ ${file} text)
  string(APPEND all "{\"${name}\", R\"trine(${text})trine\"},\n")
endforeach()
file(WRITE ${OUTPUT} "${all}")
