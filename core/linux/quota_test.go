package linux

import (
	"testing"
	"unsafe"
)

// TestQuotaStructures holds what the kernel reads to the sizes of its headers; core/layer tests what it does with it.
func TestQuotaStructures(t *testing.T) {
	if got := unsafe.Sizeof(fsxattr{}); got != 28 {
		t.Errorf("struct fsxattr has %d bytes, expected 28", got)
	}
	if got := unsafe.Sizeof(diskQuota{}); got != 112 {
		t.Errorf("struct fs_disk_quota has %d bytes, expected 112", got)
	}
	if got := unsafe.Offsetof(diskQuota{}.Hard); got != 8 {
		t.Errorf("the hard limit is at %d, expected 8", got)
	}
}
