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
MINUTES ?=
SEED ?=
CMD ?=
CPUS ?=
V ?= 0
export KSRC KERNEL_TARBALL MIRROR APT_WAIT TOOLCHAIN ACCEL TESTS MUTANTS MINUTES SEED CPUS V

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

clean:
	rm -rf build

distclean:
	@scripts/distclean.sh

define HELP
Targets
  make                   the patched kernel and the module
  make demo              boot it and follow the processes of the guest in two maps
  make test              boot the debug kernel and run the tests (TESTS="update delete": some)
  make matrix            who writes to maps how and where, and whether tracers of states are told:
                         all of it, of which make test runs a part (long)
  make test-maptrace     all tests of maptrace, and maptrace on BPF programs of Debian (long;
                         TESTS=maptrace_test or TESTS=programs: one of both)
  make test-mutants      break one point after the other and see the tests fail
                         (long; MUTANTS="attach-does-not-wait": some)
  make soak              write to maps from everywhere at once for MINUTES=5, and compare
                         them with their mirrors (CPUS=4, SEED=1 to do it again)
  make fuzz              call bpf(2) at random around tracers, for MINUTES=5, and see that what
                         comes of it is right (SEED=1 to begin with a round again)
  make model             check the models of the algorithms and their mutants (model-long:
                         the settings that take long, and memory: MEMORY_MB=8000)
  make bench             what an operation costs, traced and not, in instructions
  make bench-check       compare that with the budgets and the committed figures
  make bench-save        make it the committed figures, in Documentation/
  make bench-maptrace    what it costs the programs of a map that maptrace watches it
  make vm                a shell in the guest; CMD='...' runs one command there (make has
                         one status for any failure: for that of the command, run
                         MAP_TRACE_CMD='...' scripts/run-vm.sh release)
  make maptrace          the command that watches and compares maps, in build/maptrace
  make check             formatting, lints, the patch series, the tests of maptrace that
                         need no guest
  make module            the module alone; KDIR=... against any prepared tree
  make modules_install   install it, below INSTALL_MOD_PATH if given
  make selftests         the test binaries, without running them
  make series-open       the patched kernel as a git tree in linux/
  make series-save       write the commits of linux/ back to patches/
  make clean             remove build/
  make distclean         remove the cache too: toolchain, kernels, compiler cache

Variables
  KSRC=       a kernel tree or tarball to take instead of the one of the archive
  KERNEL_TARBALL=  the address of a tarball, for where the archive has no kernel that serves
  MIRROR=     the address of an archive of Debian to take instead of those that apt on
              this machine is set up with, and after a space that of its security updates
  TOOLCHAIN=host   use the tools of this machine
  ACCEL=      kvm or tcg; without it, KVM where a guest really boots
  CONFIG=     release or debug, in place of the target's own: debug for test, matrix,
              test-maptrace, test-mutants, fuzz and selftests, else release; check, bench and series-*
              take none; test takes release only with TESTS=, and cfi; kcsan looks for data
              races, in soak, fuzz, vm and test with TESTS=
  CPUS=       how many the guest of make vm has, without it 2, how many are busy in
              make bench-maptrace, without it 4, or of make soak and make fuzz, without it 4
  V=1         show what is being built

The cache is $${XDG_CACHE_HOME:-~/.cache}/map_trace.
endef
export HELP

help:
	@echo "$$HELP"

.PHONY: all module modules_install demo test matrix test-maptrace test-mutants soak fuzz model model-long \
	bench bench-check bench-save bench-maptrace selftests vm maptrace check series-open \
	series-save clean distclean help
