package compact

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/tetragon/api/v1/tetragon"
)

// maxArgs bounds the arguments of a hook that are shown. Tetragon has five.
const maxArgs = 8

// args appends the arguments that the look asks for, and what came back.
func (l *line) args(h *hook, how look) {
	for i, arg := range h.args {
		switch {
		case how.shown != nil && !slices.Contains(how.shown, i):
		case i >= maxArgs:
			l.raw(plain, "...")
			return
		case i > 0 && i == how.bytes:
			l.number(number(arg), "bytes")
		case withoutArch(h.name) == "sys_setns" && i == 1:
			l.word(cyan, namespaceKind(number(arg)))
		default:
			l.arg(arg)
		}
	}
	if h.result != nil && h.result.Arg != nil {
		if n, ok := h.result.Arg.(*tetragon.KprobeArgument_IntArg); ok && n.IntArg == 0 {
			return // success says nothing
		}
		l.raw(plain, "=")
		l.arg(h.result)
	}
}

// number returns the value of an integer argument, and 0 of any other.
func number(arg *tetragon.KprobeArgument) uint64 {
	switch a := arg.GetArg().(type) {
	case *tetragon.KprobeArgument_IntArg:
		return uint64(int64(a.IntArg))
	case *tetragon.KprobeArgument_UintArg:
		return uint64(a.UintArg)
	case *tetragon.KprobeArgument_SizeArg:
		return a.SizeArg
	case *tetragon.KprobeArgument_LongArg:
		return uint64(a.LongArg)
	}
	return 0
}

// arg appends one argument.
func (l *line) arg(arg *tetragon.KprobeArgument) {
	switch a := arg.GetArg().(type) {
	case *tetragon.KprobeArgument_StringArg:
		l.word(cyan, a.StringArg)
	case *tetragon.KprobeArgument_IntArg:
		l.raw(cyan, strconv.FormatInt(int64(a.IntArg), 10))
	case *tetragon.KprobeArgument_LongArg:
		l.raw(cyan, strconv.FormatInt(a.LongArg, 10))
	case *tetragon.KprobeArgument_UintArg, *tetragon.KprobeArgument_SizeArg:
		l.number(number(arg), "")
	case *tetragon.KprobeArgument_FileArg:
		l.word(cyan, a.FileArg.GetPath())
	case *tetragon.KprobeArgument_PathArg:
		l.word(cyan, a.PathArg.GetPath())
	case *tetragon.KprobeArgument_LinuxBinprmArg:
		l.word(cyan, a.LinuxBinprmArg.GetPath())
	case *tetragon.KprobeArgument_BytesArg:
		l.number(uint64(len(a.BytesArg)), "bytes")
	case *tetragon.KprobeArgument_TruncatedBytesArg:
		l.number(a.TruncatedBytesArg.GetOrigSize(), "bytes")
	case *tetragon.KprobeArgument_ErrorArg:
		l.word(cyan, "error:"+a.ErrorArg.GetMessage())
	default:
		l.kernelArg(arg)
	}
}

// kernelArg appends an argument that is an object of the kernel.
func (l *line) kernelArg(arg *tetragon.KprobeArgument) {
	switch a := arg.GetArg().(type) {
	case *tetragon.KprobeArgument_SockArg:
		s := a.SockArg
		l.flow(s.GetFamily(), s.GetProtocol(), s.GetSaddr(), s.GetSport(), s.GetDaddr(), s.GetDport())
	case *tetragon.KprobeArgument_SkbArg:
		s := a.SkbArg
		l.flow(s.GetFamily(), s.GetProtocol(), s.GetSaddr(), s.GetSport(), s.GetDaddr(), s.GetDport())
		l.number(uint64(s.GetLen()), "bytes")
	case *tetragon.KprobeArgument_SockaddrArg:
		if family := a.SockaddrArg.GetFamily(); !strings.HasPrefix(family, "AF_INET") {
			l.word(cyan, shortFamily(family))
			return
		}
		l.word(cyan, hostPort(a.SockaddrArg.GetAddr(), a.SockaddrArg.GetPort()))
	case *tetragon.KprobeArgument_SockaddrunArg:
		l.word(cyan, "unix:"+a.SockaddrunArg.GetPath())
	case *tetragon.KprobeArgument_NetDevArg:
		l.word(cyan, a.NetDevArg.GetName())
	case *tetragon.KprobeArgument_ModuleArg:
		l.module(a.ModuleArg)
	case *tetragon.KprobeArgument_SyscallId:
		l.put(cyan, fmt.Sprintf("%s/%d", a.SyscallId.GetAbi(), a.SyscallId.GetId()))
	case *tetragon.KprobeArgument_BpfAttrArg:
		b := a.BpfAttrArg
		l.program(b.GetProgType(), b.GetProgName(), b.GetInsnCnt())
	case *tetragon.KprobeArgument_BpfProgArg:
		b := a.BpfProgArg
		l.program(b.GetProgType(), b.GetProgName(), b.GetInsnCnt())
	case *tetragon.KprobeArgument_BpfMapArg:
		m := a.BpfMapArg
		l.put(cyan, fmt.Sprintf("%s key size %d value size %d max entries %d",
			typeAndName(m.GetMapType(), m.GetMapName()), m.GetKeySize(), m.GetValueSize(), m.GetMaxEntries()))
	case *tetragon.KprobeArgument_BpfCmdArg:
		l.put(cyan, a.BpfCmdArg.String())
	case *tetragon.KprobeArgument_PerfEventArg:
		l.put(cyan, typeAndName(a.PerfEventArg.GetType(), a.PerfEventArg.GetKprobeFunc()))
	default:
		l.credentialArg(arg)
	}
}

// credentialArg appends an argument that says who may do what.
func (l *line) credentialArg(arg *tetragon.KprobeArgument) {
	switch a := arg.GetArg().(type) {
	case *tetragon.KprobeArgument_ProcessCredentialsArg:
		c := a.ProcessCredentialsArg
		l.put(cyan, fmt.Sprintf("uid %d->%d gid %d->%d", c.GetUid().GetValue(), c.GetEuid().GetValue(), c.GetGid().GetValue(), c.GetEgid().GetValue()))
	case *tetragon.KprobeArgument_CapabilityArg:
		l.put(cyan, a.CapabilityArg.GetName())
	case *tetragon.KprobeArgument_UserNsArg:
		l.put(cyan, fmt.Sprintf("userns level %d uid %d", a.UserNsArg.GetLevel().GetValue(), a.UserNsArg.GetUid().GetValue()))
	case *tetragon.KprobeArgument_CapEffectiveArg:
		l.put(cyan, "effective "+a.CapEffectiveArg)
	case *tetragon.KprobeArgument_CapPermittedArg:
		l.put(cyan, "permitted "+a.CapPermittedArg)
	case *tetragon.KprobeArgument_CapInheritableArg:
		l.put(cyan, "inheritable "+a.CapInheritableArg)
	case *tetragon.KprobeArgument_KernelCapTArg:
		l.put(cyan, "capabilities "+a.KernelCapTArg)
	default:
		l.raw(cyan, "?") // of a newer Tetragon, or one before 1.1
	}
}

func (l *line) program(kind, name string, instructions uint32) {
	l.put(cyan, fmt.Sprintf("%s instruction count %d", typeAndName(kind, name), instructions))
}

// module appends a kernel module's name, or what its signature check found,
// which comes before the name is known.
func (l *line) module(m *tetragon.KernelModule) {
	if m.GetName() == "" {
		l.raw(cyan, fmt.Sprintf("signature_ok=%t", m.GetSignatureOk().GetValue()))
		return
	}
	l.word(cyan, m.GetName())
}

func typeAndName(kind, name string) string {
	if name == "" {
		return kind
	}
	return kind + " " + name
}

// flow appends a protocol and its two addresses.
func (l *line) flow(family, protocol, source string, sourcePort uint32, destination string, destinationPort uint32) {
	if !strings.HasPrefix(family, "AF_INET") {
		l.word(cyan, shortFamily(family))
		return
	}
	l.put(cyan, fmt.Sprintf("%s %s -> %s", strings.ToLower(strings.TrimPrefix(protocol, "IPPROTO_")),
		hostPort(source, sourcePort), hostPort(destination, destinationPort)))
}

// shortFamily returns "unix" for AF_UNIX.
func shortFamily(family string) string { return strings.ToLower(strings.TrimPrefix(family, "AF_")) }

func hostPort(host string, port uint32) string {
	return net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))
}

// namespaceKind returns what setns(2) calls a kind of namespace, in short.
func namespaceKind(clone uint64) string {
	switch clone {
	case 0:
		return "any"
	case 0x80:
		return "time"
	case 0x20000:
		return "mnt"
	case 0x2000000:
		return "cgroup"
	case 0x4000000:
		return "uts"
	case 0x8000000:
		return "ipc"
	case 0x10000000:
		return "user"
	case 0x20000000:
		return "pid"
	case 0x40000000:
		return "net"
	}
	return strconv.FormatUint(clone, 16)
}
