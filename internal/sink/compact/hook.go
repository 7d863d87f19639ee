package compact

import (
	"strings"

	"github.com/cilium/tetragon/api/v1/tetragon"
)

// hook is what the five kinds of hook event have in common.
type hook struct {
	process *tetragon.Process
	base    look
	name    string // of the kernel function, for kprobes
	args    []*tetragon.KprobeArgument
	result  *tetragon.KprobeArgument
	action  tetragon.KprobeAction
	policy  string
}

// look says how a hook event is shown.
type look struct {
	symbol, verb string
	names        []string // of the hook, where the verb does not say it all
	shown        []int    // the arguments to show; nil: all
	bytes        int      // the argument that is a number of bytes; 0: none
}

// hookOf returns the event's hook, and false if it is no hook event.
func hookOf(e *tetragon.GetEventsResponse) (hook, bool) {
	switch event := e.Event.(type) {
	case *tetragon.GetEventsResponse_ProcessKprobe:
		k := event.ProcessKprobe
		return hook{k.GetProcess(), look{symbol: "❓", verb: "kprobe", names: []string{k.GetFunctionName()}},
			k.GetFunctionName(), k.GetArgs(), k.GetReturn(), k.GetAction(), k.GetPolicyName()}, true
	case *tetragon.GetEventsResponse_ProcessTracepoint:
		t := event.ProcessTracepoint
		base := look{symbol: "⁉️", verb: "tracepoint", names: []string{t.GetSubsys(), t.GetEvent()}}
		if t.GetSubsys() == "raw_syscalls" && t.GetEvent() == "sys_enter" {
			base = look{symbol: "☎", verb: "syscall"}
		}
		return hook{t.GetProcess(), base, "", t.GetArgs(), nil, t.GetAction(), t.GetPolicyName()}, true
	case *tetragon.GetEventsResponse_ProcessUprobe:
		u := event.ProcessUprobe
		return hook{u.GetProcess(), look{symbol: "🕵️", verb: "uprobe", names: []string{u.GetPath(), u.GetSymbol()}},
			"", u.GetArgs(), nil, u.GetAction(), u.GetPolicyName()}, true
	case *tetragon.GetEventsResponse_ProcessUsdt:
		u := event.ProcessUsdt
		return hook{u.GetProcess(), look{symbol: "🕵️", verb: "usdt", names: []string{u.GetPath(), u.GetProvider(), u.GetName()}},
			"", u.GetArgs(), nil, u.GetAction(), u.GetPolicyName()}, true
	case *tetragon.GetEventsResponse_ProcessLsm:
		m := event.ProcessLsm
		return hook{m.GetProcess(), look{symbol: "🔒", verb: "LSM", names: []string{m.GetFunctionName()}},
			"", m.GetArgs(), nil, m.GetAction(), m.GetPolicyName()}, true
	}
	return hook{}, false
}

// looks are the kernel functions that have a verb, as tetra's users know them.
// System calls stand without the prefix of their architecture.
var looks = map[string]look{
	"sys_write":                 {symbol: "📝", verb: "write", shown: []int{0, 2}, bytes: 2},
	"sys_read":                  {symbol: "📚", verb: "read", shown: []int{0, 2}, bytes: 2},
	"fd_install":                {symbol: "📬", verb: "open", shown: []int{1}},
	"sys_openat":                {symbol: "📬", verb: "openat", shown: []int{1}},
	"sys_open":                  {symbol: "📬", verb: "open", shown: []int{0, 1}},
	"sys_close":                 {symbol: "📪", verb: "close", shown: []int{0}},
	"sys_mount":                 {symbol: "💾", verb: "mount"},
	"sys_pivot_root":            {symbol: "💾", verb: "pivot_root"},
	"sys_setuid":                {symbol: "🔑", verb: "setuid", shown: []int{0}},
	"sys_setns":                 {symbol: "🔧", verb: "setns"},
	"sys_clock_settime":         {symbol: "⏰", verb: "clock_settime"},
	"proc_exec_connector":       {symbol: "🔧", verb: "proc_exec_connector"},
	"tcp_connect":               {symbol: "🔌", verb: "connect", shown: []int{0}},
	"inet_csk_accept":           {symbol: "🔌", verb: "accept", shown: []int{}},
	"tcp_close":                 {symbol: "🧹", verb: "close", shown: []int{0}},
	"tcp_sendmsg":               {symbol: "📤", verb: "sendmsg", shown: []int{0, 1}, bytes: 1},
	"bpf_check":                 {symbol: "🐝", verb: "bpf_load", shown: []int{0}},
	"security_perf_event_alloc": {symbol: "🐝", verb: "perf_event_alloc", shown: []int{0}},
	"security_bpf_map_alloc":    {symbol: "🗺", verb: "bpf_map_create", shown: []int{0}},
	"security_bpf_map_create":   {symbol: "🗺", verb: "bpf_map_create", shown: []int{0}},
	"security_file_permission":  {symbol: "❓", verb: "file_permission", shown: []int{0}},
	"security_mmap_file":        {symbol: "📝", verb: "mmap", shown: []int{0}},
	"security_path_truncate":    {symbol: "📝", verb: "truncate", shown: []int{0}},
	"security_file_truncate":    {symbol: "📝", verb: "truncate", shown: []int{0}},
}

// look returns how the hook is shown.
func (h *hook) look() look {
	if h.name == "" {
		return h.base
	}
	name := withoutArch(h.name)
	found, ok := looks[name]
	switch {
	case !ok && strings.HasPrefix(name, "sys_"):
		h.base.symbol, h.base.verb = "☎", "syscall"
		return h.base
	case !ok:
		return h.base
	}
	if len(h.args) > 1 {
		switch name {
		case "security_file_permission": // its mask: MAY_WRITE and MAY_READ of linux/fs.h
			switch h.args[1].GetIntArg() {
			case 2:
				found.symbol, found.verb = "📝", "write"
			case 4:
				found.symbol, found.verb = "📚", "read"
			}
		case "security_mmap_file":
			found.verb += protection(number(h.args[1]))
		}
	}
	return found
}

// withoutArch cuts the prefix that system calls have in the kernel's symbols.
func withoutArch(function string) string {
	for _, prefix := range []string{"__x64_", "__ia32_", "__arm64_", "__riscv_", "__s390x_"} {
		if name, ok := strings.CutPrefix(function, prefix); ok {
			return name
		}
	}
	return function
}

// protection returns "-rwx" for PROT_READ, PROT_WRITE and PROT_EXEC of
// mmap(2), as far as they are set.
func protection(bits uint64) string {
	if bits&7 == 0 {
		return ""
	}
	text := "-"
	for i, c := range []string{"r", "w", "x"} {
		if bits&(1<<i) != 0 {
			text += c
		}
	}
	return text
}
