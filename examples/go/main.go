// SPDX-License-Identifier: GPL-2.0

// follow MAP: keeps a second map what a map in use holds, in another layout, until Ctrl-C. MAP is an
// id, or where it is pinned.
//
// cilium/ebpf reads the tracer, makes its map, and knows the kernel's BTF. It does not load a program
// whose attach type it does not know, as it would not find the function that it is for. So that, and
// the two calls that it does not know either, are made here: see Documentation/raw-bpf.rst.
package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

//go:generate clang -target bpf -O2 -g -idirafter /usr/include/x86_64-linux-gnu -c ../follow.bpf.c -o follow.bpf.o

//go:embed follow.bpf.o
var object []byte

// How long a flush may take
const flushMs = 60000

// What BPF_PROG_LOAD takes. Pointers are as long as on 64-bit machines, here and below.
type progLoad struct {
	progType, insnCnt  uint32
	insns              unsafe.Pointer
	license            unsafe.Pointer
	logLevel, logSize  uint32
	logBuf             unsafe.Pointer
	_                  [2]uint32
	progName           [16]byte
	_                  uint32
	expectedAttachType uint32
	_                  [9]uint32
	attachBtfID        uint32
}

// What BPF_LINK_CREATE takes, and what that points to.
type linkCreate struct {
	progFd, targetFd, attachType, flags uint32
	info                                unsafe.Pointer
	infoLen, _                          uint32
}

type linkInfo struct {
	mapFd, traceType uint32
	cookie           uint64
}

// What BPF_LINK_FLUSH takes. No keys: all that are in the map.
type linkFlush struct {
	linkFd, flags    uint32
	keys             unsafe.Pointer
	count, timeoutMs uint32
	left             uint64
}

// struct run_v2 of runs.h
type run struct {
	LastS, Times uint32
}

func bpf(command int, arguments unsafe.Pointer, size uintptr) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(arguments), size)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// The numbers that the kernel has for what it calls by name.
type kernel struct{ *btf.Spec }

func (k kernel) number(list, name string) uint32 {
	var enum *btf.Enum
	if k.TypeByName(list, &enum) == nil {
		for _, value := range enum.Values {
			if value.Name == name {
				return uint32(value.Value)
			}
		}
	}
	log.Fatalf("this kernel cannot trace maps: it has no %s", name)
	return 0
}

func (k kernel) function(name string) uint32 {
	var function *btf.Func
	check(k.TypeByName(name, &function), "the kernel's BTF")
	id, err := k.TypeID(function)
	check(err, "the kernel's BTF")
	return uint32(id)
}

func (k kernel) load(spec *ebpf.ProgramSpec) int {
	var insns bytes.Buffer
	check(spec.Instructions.Marshal(&insns, spec.ByteOrder), "the tracer")
	license, verifier := append([]byte(spec.License), 0), make([]byte, 64*1024)
	load := progLoad{
		progType:           unix.BPF_PROG_TYPE_TRACING,
		insnCnt:            uint32(insns.Len() / asm.InstructionSize),
		insns:              unsafe.Pointer(&insns.Bytes()[0]),
		license:            unsafe.Pointer(&license[0]),
		logLevel:           1,
		logSize:            uint32(len(verifier)),
		logBuf:             unsafe.Pointer(&verifier[0]),
		expectedAttachType: k.number("bpf_attach_type", "BPF_TRACE_MAP"),
		attachBtfID:        k.function(spec.AttachTo),
	}
	copy(load.progName[:15], spec.Name)
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&load), unsafe.Sizeof(load))
	check(err, "loading the tracer: "+unix.ByteSliceToString(verifier))
	return fd
}

func (k kernel) attach(prog, traced int) int {
	info := linkInfo{
		mapFd:     uint32(traced),
		traceType: k.number("bpf_map_trace_type", "BPF_MAP_TRACE_SYNC_ELEM"),
	}
	create := linkCreate{
		progFd:     uint32(prog),
		attachType: k.number("bpf_attach_type", "BPF_TRACE_MAP"),
		info:       unsafe.Pointer(&info),
		infoLen:    uint32(unsafe.Sizeof(info)),
	}
	fd, err := bpf(unix.BPF_LINK_CREATE, unsafe.Pointer(&create), unsafe.Sizeof(create))
	check(err, "attaching the tracer")
	return fd
}

// Waits until the tracer was told all that was there before it.
func wait(link int) {
	fds := []unix.PollFd{{Fd: int32(link), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		if err == unix.EINTR {
			continue
		}
		check(err, "waiting")
		if fds[0].Revents != unix.POLLIN {
			log.Fatal("the link is detached, or has lost keys")
		}
		return
	}
}

// Has it told all that was written so far, also through pointers.
func (k kernel) flush(link int) {
	flush := linkFlush{linkFd: uint32(link), timeoutMs: flushMs}
	command := int(k.number("bpf_cmd", "BPF_LINK_FLUSH"))
	_, err := bpf(command, unsafe.Pointer(&flush), unsafe.Sizeof(flush))
	check(err, "flushing")
}

func open(name string) (*ebpf.Map, error) {
	if id, err := strconv.ParseUint(name, 10, 32); err == nil {
		return ebpf.NewMapFromID(ebpf.MapID(id))
	}
	return ebpf.LoadPinnedMap(name, nil)
}

func check(err error, what string) {
	if err != nil {
		log.Fatalf("%s: %v", what, err)
	}
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: follow MAP")
	}
	traced, err := open(os.Args[1])
	check(err, os.Args[1])
	defer traced.Close()
	vmlinux, err := btf.LoadKernelSpec()
	check(err, "the kernel's BTF")
	k := kernel{vmlinux}

	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	check(err, "follow.bpf.o")
	second, err := ebpf.NewMap(spec.Maps["runs_v2"])
	check(err, "the second map")
	tracer := spec.Programs["follow"]
	check(tracer.Instructions.AssociateMap("runs_v2", second), "the second map")

	link := k.attach(k.load(tracer), traced.FD())
	wait(link)
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	fmt.Println("following")
	<-interrupts
	k.flush(link)
	// The end of the link is the end of the tracer.
	unix.Close(link)
	var pid uint32
	var value run
	entries := second.Iterate()
	for entries.Next(&pid, &value) {
		fmt.Printf("%d ran %d times, the last time at %d s\n", pid, value.Times, value.LastS)
	}
	check(entries.Err(), "the second map")
}
