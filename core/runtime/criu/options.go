package criu

import "os"

// Options are the options of a dump or a restore. Each has its counterpart of nearly the same name on
// CRIU's command line (criu(8)); what is zero is left to CRIU.
type Options struct {
	Images, Work *os.File // directories; Work is where the log goes, nil: Images
	Log          string   // the log's name in Work
	ConfigFile   string   // its settings are above these
	Pid          int      // root of the tree to dump

	Root            string // restore: the container's root, a mount point
	RestoreSibling  bool   // restore: as a child of the caller
	EvasiveDevices  bool
	LSMProfile      string
	LSMMountContext string

	LeaveRunning, ShellJob, FileLocks, LinkRemap  bool
	ExtUnixSk, OrphanPTSMaster                    bool
	TCPEstablished, TCPSkipInFlight               bool
	AutoDedup, LazyPages, TrackMemory             bool
	Parent                                        string // of the images, relative to Images
	PageServer                                    *PageServer
	FreezeCgroup                                  string
	EmptyNetwork                                  bool
	CgroupMode                                    CgroupMode
	CgroupRoots, Mounts, InheritFiles, Namespaces []Pair
	External                                      []string
}

// PageServer is where pages are sent, or served to the one who asks.
type PageServer struct {
	Address string
	Port    uint16
}

// Pair is a key with a value; see Options.
type Pair struct {
	Key, Value string
	Number     int // InheritFiles: the descriptor in CRIU
}

// CgroupMode is criu(8)'s --manage-cgroups.
type CgroupMode string

// Modes. "" is CRIU's default, which is soft.
var cgroupModes = map[CgroupMode]uint64{"ignore": 0, "soft": 3, "full": 4, "strict": 5, "": 6}

// Known reports whether there is such a mode.
func (m CgroupMode) Known() bool { _, ok := cgroupModes[m]; return ok }

const newNet = 0x40000000 // CLONE_NEWNET

// encode is the message criu_opts.
func (o *Options) encode() message {
	var m message
	if o.Images != nil {
		m.signed(1, int(o.Images.Fd()))
	}
	if o.Pid != 0 {
		m.signed(2, o.Pid)
	}
	m.yes(3, o.LeaveRunning)
	m.yes(4, o.ExtUnixSk)
	m.yes(5, o.TCPEstablished)
	m.yes(6, o.EvasiveDevices)
	m.yes(7, o.ShellJob)
	m.yes(8, o.FileLocks)
	m.number(9, logLevel)
	m.text(10, o.Log)
	if p := o.PageServer; p != nil {
		var s message
		s.text(1, p.Address)
		s.number(2, uint64(p.Port))
		m.bytes(11, s)
	}
	m.yes(12, true) // notifications
	m.text(13, o.Root)
	m.text(14, o.Parent)
	m.yes(15, o.TrackMemory)
	m.yes(16, o.AutoDedup)
	if o.Work != nil {
		m.signed(17, int(o.Work.Fd()))
	}
	m.yes(18, o.LinkRemap)
	m.pairs(23, o.Mounts)
	m.yes(24, true) // manage_cgroups; the mode says how
	m.pairs(25, o.CgroupRoots)
	m.yes(26, o.RestoreSibling)
	for _, p := range o.InheritFiles {
		var f message
		f.text(1, p.Key)
		f.signed(2, p.Number)
		m.bytes(27, f)
	}
	m.number(34, cgroupModes[o.CgroupMode])
	for _, e := range o.External {
		m.text(37, e)
	}
	if o.EmptyNetwork {
		m.number(38, newNet)
	}
	m.pairs(39, o.Namespaces)
	m.text(44, o.FreezeCgroup)
	m.yes(46, o.TCPSkipInFlight)
	m.yes(48, o.LazyPages)
	m.yes(50, o.OrphanPTSMaster)
	m.text(51, o.ConfigFile)
	m.text(53, o.LSMProfile)
	m.text(63, o.LSMMountContext)
	return m
}

// pairs writes messages that have two strings: ext_mount_map, cgroup_root, join_namespace.
func (m *message) pairs(field int, list []Pair) {
	for _, p := range list {
		var pair message
		pair.text(1, p.Key)
		pair.bytes(2, []byte(p.Value)) // required, and may be empty
		m.bytes(field, pair)
	}
}

// logLevel is debug, without which the log does not tell why something failed.
const logLevel = 4
