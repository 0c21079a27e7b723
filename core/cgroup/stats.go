package cgroup

// Stats is what the kernel accounted for a container. Counters count from the cgroup's creation;
// a field is zero where the host has no controller for it.
type Stats struct {
	CPU    CPUStats    `json:"cpu"`
	Memory MemoryStats `json:"memory"`
	Pids   PidsStats   `json:"pids"`
	Block  BlockStats  `json:"block"`
	// Hugetlb is by the size of the pages, such as 2MB.
	Hugetlb map[string]HugetlbStats `json:"hugetlb,omitempty"`
	// The pressures are of the unified hierarchy; nil where the kernel does not measure them.
	CPUPressure    *Pressure `json:"cpuPressure,omitempty"`
	MemoryPressure *Pressure `json:"memoryPressure,omitempty"`
	BlockPressure  *Pressure `json:"blockPressure,omitempty"`
}

// CPUStats are times in nanoseconds.
type CPUStats struct {
	Total            uint64   `json:"total"`
	User             uint64   `json:"user"`
	System           uint64   `json:"system"`
	PerCPU           []uint64 `json:"perCPU,omitempty"` // cgroup v1 only
	Periods          uint64   `json:"periods"`          // of the quota
	ThrottledPeriods uint64   `json:"throttledPeriods"`
	Throttled        uint64   `json:"throttled"`
}

// MemoryStats are sizes in bytes.
type MemoryStats struct {
	Usage     uint64            `json:"usage"`
	Max       uint64            `json:"max"`   // the highest usage seen; 0 where the kernel does not tell
	Limit     uint64            `json:"limit"` // math.MaxUint64: none
	SwapUsage uint64            `json:"swapUsage"`
	SwapLimit uint64            `json:"swapLimit"` // math.MaxUint64: none
	Failcnt   uint64            `json:"failcnt"`   // times the limit was hit
	OOMKills  uint64            `json:"oomKills"`
	Detail    map[string]uint64 `json:"detail,omitempty"` // memory.stat
}

// PidsStats count tasks.
type PidsStats struct {
	Current uint64 `json:"current"`
	Limit   uint64 `json:"limit"` // math.MaxUint64: none
}

// BlockStats is what went to and from block devices.
type BlockStats struct {
	Bytes      []BlockEntry `json:"bytes,omitempty"`
	Operations []BlockEntry `json:"operations,omitempty"`
}

// BlockEntry is one counter of one device.
type BlockEntry struct {
	Major uint64 `json:"major"`
	Minor uint64 `json:"minor"`
	Op    string `json:"op"` // "read", "write", "discard"
	Value uint64 `json:"value"`
}
