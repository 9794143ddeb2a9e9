# SPDX-License-Identifier: GPL-2.0
#
# What a user types. Each target is a script of scripts/.

# The module's own build reads Kbuild, not this file.
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash

CONFIG ?=
KDIR ?=
DESTDIR ?=
TESTS ?=
MUTANTS ?=
EXAMPLES ?=
MINUTES ?=
SEED ?=
CMD ?=
CPUS ?=
V ?= 0
KIND ?=
export KSRC KERNEL_TARBALL MIRROR APT_WAIT TOOLCHAIN ACCEL TESTS KIND MUTANTS EXAMPLES MINUTES SEED CPUS V

# Where a target has a kernel of its own, CONFIG= overrides.
config = $(or $(CONFIG),$(1))

all:
	@scripts/build.sh $(call config,release)

module:
	@scripts/module-for.sh $(call config,release) '$(KDIR)'

modules_install:
	@scripts/module-for.sh $(call config,release) '$(KDIR)' '$(or $(INSTALL_MOD_PATH),$(DESTDIR),/)'

demo:
	@scripts/run-demo.sh $(call config,release)

test:
	@CONFIG=$(call config,debug) scripts/run-tests.sh

test-maptrace:
	@scripts/test-maptrace.sh $(call config,debug)

# The time is for all cells on an emulated debug kernel.
matrix: export TESTS = sync_matrix
matrix: export SYNC_MATRIX = all
matrix: export GUEST_SECONDS = 7200
matrix:
	@CONFIG=$(call config,debug) scripts/run-tests.sh

test-upstream:
	@scripts/test-upstream.sh $(call config,release)

examples:
	@scripts/examples.sh $(EXAMPLES) > /dev/null
	@echo "examples: build/examples"

test-examples:
	@scripts/test-examples.sh $(call config,debug)

test-mutants:
	@CONFIG=$(call config,debug) scripts/test-mutants.sh

soak:
	@scripts/run-soak.sh $(call config,release)

fuzz:
	@scripts/run-fuzz.sh $(call config,debug)

model:
	@scripts/run-model.sh

model-long:
	@scripts/run-model.sh long

bench:
	@scripts/run-bench.sh

bench-check:
	@scripts/run-bench.sh check

bench-save:
	@scripts/run-bench.sh save

bench-maptrace:
	@scripts/bench-maptrace.sh $(call config,release)

selftests:
	@scripts/guest-files.sh $(call config,debug) maptrace selftests > /dev/null

maptrace:
	@scripts/maptrace.sh build > /dev/null
	@echo "maptrace: build/maptrace/bin/maptrace"

vm: export MAP_TRACE_CMD = $(value CMD)
vm:
	@scripts/run-vm.sh $(call config,release)

check:
	@scripts/check.sh

series-open:
	@scripts/series.sh open

series-save:
	@scripts/series.sh save

series-check:
	@scripts/check-series.sh

series-send:
	@scripts/series.sh send

clean:
	rm -rf build

distclean:
	@scripts/distclean.sh

define HELP
Targets
  make                   build the patched kernel and the module
  make demo              boot it, and mirror a map of the guest's processes in a second map
  make test              boot the debug kernel and run the tests (TESTS="update delete": only
                         these)
  make matrix            run all cells of the matrix of sync tracers: each way to write, in each
                         context, to each type of map; make test runs a part of them (long)
  make test-maptrace     run all tests of maptrace, then maptrace on BPF programs of Debian (long;
                         TESTS=maptrace_test or TESTS=programs: only one of these)
  make test-upstream     run the kernel's own tests of BPF on the unpatched kernel, on the patched one,
                         with the module, and with tracers on every map, and compare the results
                         (long; KIND=base, patched, loaded, traced: only these;
                         TESTS="test_verifier test_maps test_progs map*": only these, the last
                         are patterns of tests of test_progs)
  make examples          build the loaders of tracers in other languages than C, in build/examples
                         (EXAMPLES="rust go aya": only these; Go is installed for that one)
  make test-examples     build them, and run them on a map that is in use
  make test-mutants      break the code in one point after the other, and see the tests fail
                         (long; MUTANTS="attach-does-not-wait": only this)
  make soak              write to maps from everywhere at once for MINUTES=5, and compare
                         them with their mirrors (CPUS=4; SEED=1 repeats the random numbers)
  make fuzz              call bpf(2) at random around tracers for MINUTES=5, and compare the
                         results with a model (SEED=1 starts with that round)
  make model             check the models of the algorithms and their mutants (model-long:
                         the settings that need much time and memory: MEMORY_MB=8000)
  make bench             measure what an operation costs, traced and not, in instructions
  make bench-check       measure, and compare with the budgets and the committed figures
  make bench-save        measure, and save the figures to Documentation/
  make bench-maptrace    measure what the programs of a map pay while maptrace watches it
  make vm                open a shell in the guest; CMD='...' runs one command there (make has
                         one status for all failures; to get the status of the command, run
                         MAP_TRACE_CMD='...' scripts/run-vm.sh release)
  make maptrace          build the command that watches and compares maps, in build/maptrace
  make check             check formatting, lints and the patch series, and run the tests of
                         maptrace that need no guest
  make module            build only the module; KDIR=... against any prepared tree
  make modules_install   install it, below INSTALL_MOD_PATH if given
  make selftests         build the test binaries, without running them
  make series-open       make linux/, the patched kernel as a git tree
  make series-save       write the commits of linux/ back to patches/
  make series-check      run checkpatch on the series, apply it and compile at each patch
                         (KSRC=... tries another kernel, and says which patch fails where)
  make series-send       write the series with a cover letter and the module in its place in the
                         kernel tree to build/send, as it is sent to a mailing list
  make clean             remove build/
  make distclean         remove the cache too: toolchain, kernels, compiler cache

Variables
  KSRC=       a kernel tree or tarball to use instead of the archive's
  KERNEL_TARBALL=  the address of a tarball, if the archive has no kernel that works
  MIRROR=     the address of a Debian archive to use instead of those that apt on this
              machine is configured with, and after a space that of its security updates
  TOOLCHAIN=host   use the tools of this machine
  ACCEL=      kvm or tcg; the default is KVM if a guest really boots under it
  CONFIG=     the kernel: release or debug. The default is debug for test, matrix,
              test-maptrace, test-examples, test-mutants, fuzz and selftests, else release. check,
              examples, bench and series-* take none. test takes release only with TESTS=, and also cfi. kcsan looks
              for data races, in soak, fuzz, vm, and test with TESTS=
  CPUS=       CPUs of the guest of make vm (default 2), of make soak and make fuzz (default 4),
              or the busy ones in make bench-maptrace (default 4)
  V=1         show what is being built

The cache is $${XDG_CACHE_HOME:-~/.cache}/map_trace.
endef
export HELP

help:
	@echo "$$HELP"

.PHONY: all module modules_install demo test matrix test-maptrace test-upstream examples \
	test-examples test-mutants soak fuzz model model-long bench bench-check bench-save bench-maptrace selftests vm maptrace check series-open \
	series-save series-check series-send clean distclean help
