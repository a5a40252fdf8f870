package explain

import (
	"slices"
	"testing"
)

func TestStack(t *testing.T) {
	var have []string
	s := New(func(v string) bool {
		have = append(have, v)
		return v != "last"
	})
	s.Push("nothing below")
	if s.Pop() {
		t.Error("a heading without anything below it was said")
	}
	s.Push("a")
	s.Push("b")
	s.Emit("c")
	s.Emit("d")
	for range 2 {
		if !s.Pop() {
			t.Error("a heading was not said")
		}
	}
	s.Push("e")
	s.Say()
	s.Say()
	s.Pop()
	if s.Ended() {
		t.Error("ended too early")
	}
	s.Emit("last")
	s.Emit("nobody listens")
	if want := []string{"a", "b", "c", "d", "e", "last"}; !slices.Equal(have, want) {
		t.Errorf("emitted %q, want %q", have, want)
	}
	if !s.Ended() || s.Count() != 7 {
		t.Errorf("ended %v, count %d", s.Ended(), s.Count())
	}
}
