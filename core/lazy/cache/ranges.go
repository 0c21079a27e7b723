package cache

import "slices"

// span is a part of the blob, End excluded.
type span struct{ At, End int64 }

// spans are parts in their order that neither overlap nor touch.
type spans []span

// add returns the spans with one more.
func (s spans) add(n span) spans {
	if n.At >= n.End {
		return s
	}
	i, _ := slices.BinarySearchFunc(s, n, func(a, b span) int {
		if a.End < b.At {
			return -1
		}
		return 1
	})
	j := i
	for j < len(s) && s[j].At <= n.End {
		n.At, n.End = min(n.At, s[j].At), max(n.End, s[j].End)
		j++
	}
	return slices.Replace(s, i, j, n)
}

// remove returns the spans without a part.
func (s spans) remove(n span) spans {
	if n.At >= n.End {
		return s
	}
	var left spans
	for _, have := range s {
		if have.End <= n.At || have.At >= n.End {
			left = append(left, have)
			continue
		}
		if have.At < n.At {
			left = append(left, span{have.At, n.At})
		}
		if have.End > n.End {
			left = append(left, span{n.End, have.End})
		}
	}
	return left
}

// holes returns what is missing of a part.
func (s spans) holes(n span) spans {
	missing := spans{n}
	for _, have := range s {
		if have.At >= n.End {
			break
		}
		missing = missing.remove(have)
	}
	return missing
}
