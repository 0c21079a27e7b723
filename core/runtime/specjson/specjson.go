// Package specjson reads and writes the specification of a container as JSON, and looks only at the parts
// that are there.
//
// Package encoding/json finds out how to handle a type, with every type that can be reached from it, when
// it first meets one. From specs.Spec those are some hundred, for Windows, Solaris and z/OS too: a
// millisecond, in a process that lives for a few only (docs/performance.md). So the types here are those of the runtime-spec with a Part where a type
// begins that most containers do not have; encoding/json meets what is inside when it is there.
//
//	specs.Spec ──Of──▶ Spec ──json.Marshal──▶ text ──json.Unmarshal──▶ Spec ──Spec.Spec──▶ specs.Spec
//
// They have the layout of the runtime-spec's, so that going from one to the other is no work; a test
// compares them field by field.
package specjson

import (
	"reflect"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/sparsejson"
)

// Spec is specs.Spec.
type Spec struct {
	Version     string               `json:"ociVersion"`
	Process     *specs.Process       `json:"process,omitempty"`
	Root        *specs.Root          `json:"root,omitempty"`
	Hostname    string               `json:"hostname,omitempty"`
	Domainname  string               `json:"domainname,omitempty"`
	Mounts      []specs.Mount        `json:"mounts,omitempty"`
	Hooks       Part[*specs.Hooks]   `json:"hooks,omitzero"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Linux       *Linux               `json:"linux,omitempty"`
	Solaris     Part[*specs.Solaris] `json:"solaris,omitzero"`
	Windows     Part[*specs.Windows] `json:"windows,omitzero"`
	VM          Part[*specs.VM]      `json:"vm,omitzero"`
	ZOS         Part[*specs.ZOS]     `json:"zos,omitzero"`
	FreeBSD     Part[*specs.FreeBSD] `json:"freebsd,omitzero"`
}

// Linux is specs.Linux.
type Linux struct {
	UIDMappings       []specs.LinuxIDMapping                 `json:"uidMappings,omitempty"`
	GIDMappings       []specs.LinuxIDMapping                 `json:"gidMappings,omitempty"`
	Sysctl            map[string]string                      `json:"sysctl,omitempty"`
	Resources         *Resources                             `json:"resources,omitempty"`
	CgroupsPath       string                                 `json:"cgroupsPath,omitempty"`
	Namespaces        []specs.LinuxNamespace                 `json:"namespaces,omitempty"`
	Devices           Part[[]specs.LinuxDevice]              `json:"devices,omitzero"`
	NetDevices        Part[map[string]specs.LinuxNetDevice]  `json:"netDevices,omitzero"`
	Seccomp           Part[*specs.LinuxSeccomp]              `json:"seccomp,omitzero"`
	RootfsPropagation string                                 `json:"rootfsPropagation,omitempty"`
	MaskedPaths       []string                               `json:"maskedPaths,omitempty"`
	ReadonlyPaths     []string                               `json:"readonlyPaths,omitempty"`
	MountLabel        string                                 `json:"mountLabel,omitempty"`
	IntelRdt          Part[*specs.LinuxIntelRdt]             `json:"intelRdt,omitzero"`
	MemoryPolicy      Part[*specs.LinuxMemoryPolicy]         `json:"memoryPolicy,omitzero"`
	Personality       Part[*specs.LinuxPersonality]          `json:"personality,omitzero"`
	TimeOffsets       Part[map[string]specs.LinuxTimeOffset] `json:"timeOffsets,omitzero"`
}

// Resources is specs.LinuxResources.
type Resources struct {
	Devices        []specs.LinuxDeviceCgroup        `json:"devices,omitempty"`
	Memory         Part[*specs.LinuxMemory]         `json:"memory,omitzero"`
	CPU            Part[*specs.LinuxCPU]            `json:"cpu,omitzero"`
	Pids           Part[*specs.LinuxPids]           `json:"pids,omitzero"`
	BlockIO        Part[*specs.LinuxBlockIO]        `json:"blockIO,omitzero"`
	HugepageLimits Part[[]specs.LinuxHugepageLimit] `json:"hugepageLimits,omitzero"`
	Network        Part[*specs.LinuxNetwork]        `json:"network,omitzero"`
	Rdma           Part[map[string]specs.LinuxRdma] `json:"rdma,omitzero"`
	Unified        map[string]string                `json:"unified,omitempty"`
}

// Part is a value of whose type nothing is found out before there is one.
type Part[T any] struct{ Value T }

// UnmarshalJSON is that of the value.
func (p *Part[T]) UnmarshalJSON(text []byte) error { return sparsejson.Unmarshal(text, &p.Value) }

// MarshalJSON is that of the value.
func (p Part[T]) MarshalJSON() ([]byte, error) { return sparsejson.Marshal(p.Value) }

// IsZero is what omitempty says of the value.
func (p Part[T]) IsZero() bool {
	v := reflect.ValueOf(&p.Value).Elem()
	if v.Kind() == reflect.Map || v.Kind() == reflect.Slice {
		return v.Len() == 0
	}
	return v.IsZero()
}

// Of is the specification itself, to be read or written as JSON; nil of nil.
func Of(s *specs.Spec) *Spec { return (*Spec)(unsafe.Pointer(s)) }

// Spec is the specification that Of was called with, or that was read.
func (s *Spec) Spec() *specs.Spec { return (*specs.Spec)(unsafe.Pointer(s)) }
