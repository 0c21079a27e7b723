package agent

import (
	"cmp"
	"slices"

	"github.com/sampan-project/sampan/core/wire"
)

// Bounds of one News, so that it fits into a line of session.MaxReport.
const (
	maxNews  = 900 << 10 // bytes of its JSON, as size reckons
	maxError = 1 << 10   // bytes of a status's error
	maxPorts = 1 << 10   // of a task
)

// size is at most so much as a word has in JSON.
func (w *word) size() int {
	const escaped = 6 // bytes of JSON that a byte of text may become
	return 512 + escaped*(len(w.status.Err)+len(w.status.Message)) + 160*len(w.status.PortStatus.Ports)
}

// News are the statuses that changed after another News.
type News struct {
	Seq     uint64 // for the next call
	Tasks   map[string]wire.TaskStatus
	Gone    []string        // tasks whose removal was wanted, and of which nothing is left
	Changed <-chan struct{} // closed when there is more than this
}

// journal has the newest word on each task, numbered in the order in which they came.
type journal struct {
	seq     uint64
	words   map[string]word
	changed chan struct{} // closed at the next word
}

// word is what there is to tell of a task.
type word struct {
	seq    uint64
	status wire.TaskStatus
	gone   bool
}

func newJournal() journal { return journal{words: map[string]word{}, changed: make(chan struct{})} }

func (j *journal) tell(id string, w word) {
	j.seq++
	w.seq = j.seq
	j.words[id] = w
	close(j.changed)
	j.changed = make(chan struct{})
}

// forget drops what was told of a task that the leader does not know any more.
func (j *journal) forget(id string) { delete(j.words, id) }

func (j *journal) since(seq uint64) News {
	var ids []string
	for id, w := range j.words {
		if w.seq > seq {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(j.words[a].seq, j.words[b].seq) })
	n := News{Seq: j.seq, Changed: j.changed, Tasks: map[string]wire.TaskStatus{}}
	size := 0
	for i, id := range ids {
		w := j.words[id]
		if size += w.size(); size > maxNews && i > 0 {
			more := make(chan struct{})
			close(more)
			n.Seq, n.Changed = j.words[ids[i-1]].seq, more
			break
		}
		if w.gone {
			n.Gone = append(n.Gone, id)
		} else {
			n.Tasks[id] = w.status
		}
	}
	return n
}

// News returns what changed since another News, by its Seq, and all for 0, as a new session tells it. One
// News fits into a session.Report; what does not comes with the next call, for which Changed is closed already.
func (a *Agent) News(since uint64) News {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.news.since(since)
}
