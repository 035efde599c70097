"""Hands the build of the binaries to CMakeLists.txt; all metadata is in pyproject.toml."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import ninja
import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


class CMakeBuild(build_ext):
    """Builds everything that CMakeLists.txt installs and puts it next to the extension `vtfast._C`."""

    def run(self) -> None:
        """Configures, builds and installs; each is quick where nothing changed."""
        if shutil.which("cmake") is None:
            raise SystemExit("building vtfast needs cmake >= 3.24 on PATH; on Debian and Ubuntu: apt-get install cmake")
        source = Path(__file__).resolve().parent
        # setuptools would give an editable install a new temporary folder each time, and so a full rebuild.
        build = source / "build" / f"cmake-{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
        package = Path(self.get_ext_fullpath("vtfast._C")).resolve().parent
        configuration = {
            "CMAKE_BUILD_TYPE": "Debug" if self.debug else "Release",
            "CMAKE_MAKE_PROGRAM": Path(ninja.BIN_DIR) / "ninja",
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
            # Always given, or the build folder would remember those of the last build.
            "VTFAST_CUDA": os.environ.get("VTFAST_CUDA", "AUTO"),
            "TORCH_CUDA_ARCH_LIST": os.environ.get("TORCH_CUDA_ARCH_LIST", ""),
        }
        definitions = [f"-D{name}={value}" for name, value in configuration.items()]
        jobs = os.environ.get("MAX_JOBS", str(os.cpu_count()))
        subprocess.check_call(["cmake", "-G", "Ninja", "-S", source, "-B", build, *definitions])
        subprocess.check_call(["cmake", "--build", build, "--parallel", jobs])
        subprocess.check_call(["cmake", "--install", build, "--prefix", package])


setup(ext_modules=[Extension("vtfast._C", sources=[])], cmdclass={"build_ext": CMakeBuild})
