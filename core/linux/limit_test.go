package linux

import (
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux/raw"
)

func TestMoreFiles(t *testing.T) {
	if raw.NofileHard >= mostFiles {
		t.Skip("needs a hard limit of open files below the most there can be")
	}
	MoreFiles()
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
	if !moreFiles.Load() {
		t.Skipf("needs CAP_SYS_RESOURCE: the limit stays %d", now.Max)
	}
	if now.Cur != mostFiles || now.Max != mostFiles {
		t.Errorf("limits %d and %d, expected %d", now.Cur, now.Max, mostFiles)
	}
	if got, _ := run(t, Spawn{}, "ulimit -Hn"); got != strconv.FormatUint(raw.NofileHard, 10) {
		t.Errorf("a program has %q; expected %d", got, raw.NofileHard)
	}
}
