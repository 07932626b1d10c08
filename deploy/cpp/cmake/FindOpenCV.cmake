# SPDX-License-Identifier: Apache-2.0
# OpenCV by its own config file, or its parts alone: Debian has that file only in libopencv-dev, which brings
# 400 MB, and the libraries that are needed in libopencv-core-dev, -imgproc-dev and -imgcodecs-dev.
find_package(OpenCV CONFIG QUIET COMPONENTS ${OpenCV_FIND_COMPONENTS})
if(NOT OpenCV_FOUND)
  find_path(OpenCV_INCLUDE_DIR opencv2/core/version.hpp PATH_SUFFIXES opencv4 opencv5)
  set(OpenCV_PARTS OpenCV_INCLUDE_DIR)
  foreach(part IN LISTS OpenCV_FIND_COMPONENTS)
    find_library(OpenCV_${part}_LIBRARY opencv_${part})
    list(APPEND OpenCV_PARTS OpenCV_${part}_LIBRARY)
    if(OpenCV_${part}_LIBRARY AND NOT TARGET opencv_${part})
      add_library(opencv_${part} UNKNOWN IMPORTED)
      set_target_properties(opencv_${part} PROPERTIES
        IMPORTED_LOCATION "${OpenCV_${part}_LIBRARY}"
        INTERFACE_INCLUDE_DIRECTORIES "${OpenCV_INCLUDE_DIR}")
    endif()
  endforeach()
  if(OpenCV_INCLUDE_DIR)
    file(STRINGS "${OpenCV_INCLUDE_DIR}/opencv2/core/version.hpp" lines REGEX "define CV_VERSION_M[AI]")
    string(REGEX MATCHALL "[0-9]+" OpenCV_VERSION "${lines}")
    list(JOIN OpenCV_VERSION "." OpenCV_VERSION)
  endif()
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OpenCV REQUIRED_VARS ${OpenCV_PARTS} OpenCV_VERSION
  VERSION_VAR OpenCV_VERSION)
