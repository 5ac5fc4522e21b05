# A thin front of CMake and Ninja.  `make demo` and `make check` do everything on a fresh Debian 12 machine:
# each begins by installing the Debian packages that are missing (scripts/packages.txt).
#
#   make             the program at build/retort
#   make demo        teacher, student, judge, report: TOKENS=..., PROMPTS=file
#   make check       all tests, the parsers again under sanitizers, lint, a short demo
#   make check-tsan  servers, gate and clients again under ThreadSanitizer
#   make lint        layering, banned calls, format, headers alone; TIDY=1 adds clang-tidy and cppcheck
#   make fmt         formats the C files
#   make bench       speed beside the machine's measured limits: WHAT=train|prefill|decode|gemm|serve|...
#   make fuzz        every parser under libFuzzer: SECONDS=60 each, TARGET=name for one
#   make peers       comparison with PyTorch and llama.cpp, in a venv under build/
#   make results     the objectives beside each other, three seeds: docs/results.md; about 35 minutes
#   make results-headline  Qwen2.5-Coder-1.5B teaches the 0.5B on code: docs/results-headline.md; some 90 minutes, goes on where it stopped
#   make results-evidence  students trained on marked text: docs/results-evidence.md; hours, may be stopped and goes on
#   make results-quality   does marking cost quality? students of marked and unmarked answers: docs/results-quality.md; some 35 minutes
#   make results-onpolicy   a student's own text against its teacher's: docs/results-onpolicy.md; about 25 minutes
#   make results-reasoning  REASONER=model: a teacher's right answers to word problems: docs/results-reasoning.md; about an hour
#   make story       harvest, guard, student, evidence: the whole story on one page; STORY=short for minutes
#   make install     PREFIX=/usr/local, DESTDIR=
#   make uninstall   removes what the last install put in place
#   make dist        retort-VERSION.tar.gz from the last commit
#   make clean       removes build folders
#   make PRESET=debug|asan|tsan|fuzz    another build, in build-<preset>/

PREFIX ?= /usr/local
PRESET ?= release
WHAT ?= all
SECONDS ?= 60
JOBS ?= $(shell nproc)
FOLDER := $(if $(filter release,$(PRESET)),build,build-$(PRESET))
VERSION = $(shell sed -n 's/.*RT_VERSION "\(.*\)"/\1/p' include/retort/version.h)

.PHONY: all check check-tsan demo bench lint fmt fuzz peers results results-onpolicy results-reasoning story results-evidence results-quality results-headline install uninstall dist clean deps deps-check
.DEFAULT_GOAL := all

deps:
	@scripts/install-deps build

deps-check:
	@scripts/install-deps build check

all: deps
	@cmake --preset $(PRESET) >$(FOLDER).cmake.log 2>&1 || { cat $(FOLDER).cmake.log; exit 1; }
	@mkdir -p $(FOLDER) && mv $(FOLDER).cmake.log $(FOLDER)/configure.log
	@ninja -C $(FOLDER) -j $(JOBS) $(if $(filter fuzz,$(PRESET)),,retort extras)

check: deps-check
	@scripts/check

check-tsan: deps-check
	@scripts/check-tsan

demo: all
	@scripts/demo

bench: all
	@scripts/bench $(WHAT)

lint: deps-check
	@TIDY=$(TIDY) scripts/lint

fmt: deps-check
	@git ls-files -z -- '*.c' '*.h' | xargs -0 clang-format -i

fuzz: deps-check
	@scripts/fuzz $(SECONDS) $(TARGET)

peers: all
	@peers/run

results: all
	@scripts/results

story: all
	@scripts/story

results-onpolicy: all
	@scripts/results-onpolicy

results-reasoning: all
	@scripts/results-reasoning

results-evidence: all
	@scripts/results-evidence

results-quality: all
	@scripts/results-quality

results-headline: all
	@scripts/results-headline

install: all
	@cmake --install build --prefix $(abspath $(PREFIX)) --strip

uninstall:
	@scripts/uninstall build/install_manifest.txt

dist:
	@git archive --format=tar.gz --prefix=retort-$(VERSION)/ -o retort-$(VERSION).tar.gz HEAD
	@echo retort-$(VERSION).tar.gz

clean:
	@rm -rf build build-debug build-asan build-tsan build-fuzz
