# SPDX-License-Identifier: GPL-2.0
#
# How BPF programs and what loads them are built for a guest. A Makefile that includes
# this gets the rules for $(OBJ)/vmlinux.h, $(OBJ)/NAME.bpf.o and $(OBJ)/NAME.skel.h,
# from NAME.bpf.c in $(PROGS), and for $(OBJ)/NAME.o from NAME.c. Set before:
#
#   HERE       the directory of that Makefile
#   PROGS      where its BPF programs are
#   OBJ        where the objects go
#
# And by who runs make:
#
#   KSRC_TREE  the patched kernel source tree
#   LIBBPF     a prefix with include/bpf/*.h and libbpf.a
#   BPFTOOL    makes the skeletons
#   VMLINUX_H  the types of the patched kernel, by "bpftool btf dump ... format c"
#   OUTPUT     where what is built goes

ifeq ($(filter clean,$(MAKECMDGOALS)),)
$(foreach var,KSRC_TREE LIBBPF BPFTOOL VMLINUX_H OUTPUT,\
	$(if $($(var)),,$(error $(var) is not set)))
endif

CLANG ?= clang-19
CC := $(CLANG)

LIBBPF_A := $(firstword $(wildcard $(LIBBPF)/libbpf.a $(LIBBPF)/lib*/libbpf.a) \
	$(LIBBPF)/libbpf.a)
SKELETONS := $(patsubst $(PROGS)/%.bpf.c,$(OBJ)/%.skel.h,$(filter-out $(PROGS)/stock_%,\
	$(wildcard $(PROGS)/*.bpf.c)))

CFLAGS += -g -O2 -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -MMD -MP
CPPFLAGS += -D_GNU_SOURCE -I$(HERE) -I$(OBJ) -isystem $(LIBBPF)/include \
	-isystem $(KSRC_TREE)/tools/testing/selftests -isystem $(KSRC_TREE)/tools/include/uapi
LDLIBS += -lelf -lz -lpthread
BPF_CFLAGS := -target bpf -D__TARGET_ARCH_x86 -mcpu=v3 -O2 -g -Wall -Werror -Wno-missing-declarations \
	-Wno-compare-distinct-pointer-types

# What includes this has its own first.
.DEFAULT_GOAL := all

$(sort $(OUTPUT) $(OBJ)):
	mkdir -p $@

# A copy of its own: VMLINUX_H may have any name.
$(OBJ)/vmlinux.h: $(VMLINUX_H) | $(OBJ)
	cp $< $@

$(OBJ)/%.bpf.o: $(PROGS)/%.bpf.c $(OBJ)/vmlinux.h $(wildcard $(PROGS)/*.h)
	$(CLANG) $(BPF_CFLAGS) -I$(OBJ) -I$(PROGS) -I$(LIBBPF)/include -c $< -o $@

$(OBJ)/%.skel.h: $(OBJ)/%.bpf.o
	$(BPFTOOL) gen skeleton $< name $*_bpf > $@.tmp
	mv $@.tmp $@

$(OBJ)/%.o: $(HERE)/%.c $(SKELETONS) | $(OBJ)
	$(CC) $(CPPFLAGS) $(CFLAGS) -c $< -o $@

.SECONDARY:
