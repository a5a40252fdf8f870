// Package explain holds headings back until there is something to put below
// them.
package explain

// A Stack passes values on. One that is pushed waits until another is emitted
// after it: "this layer differs" is said only when something in it counts.
type Stack[T any] struct {
	yield func(T) bool
	open  []heading[T]
	ended bool
	n     int
}

type heading[T any] struct {
	value T
	said  bool
}

// New returns a stack that passes on to yield, until that is false.
func New[T any](yield func(T) bool) *Stack[T] { return &Stack[T]{yield: yield} }

// Push opens a heading; [Stack.Pop] closes it.
func (s *Stack[T]) Push(v T) { s.open = append(s.open, heading[T]{value: v}) }

// Pop closes the last heading and tells whether it was said.
func (s *Stack[T]) Pop() bool {
	last := s.open[len(s.open)-1]
	s.open = s.open[:len(s.open)-1]
	return last.said
}

// Say passes on all open headings that were not said yet.
func (s *Stack[T]) Say() {
	for i := range s.open {
		if !s.open[i].said {
			s.open[i].said = true
			s.pass(s.open[i].value)
		}
	}
}

// Emit passes v on, below its headings.
func (s *Stack[T]) Emit(v T) {
	s.Say()
	s.pass(v)
}

func (s *Stack[T]) pass(v T) {
	s.n++
	if !s.ended && !s.yield(v) {
		s.ended = true
	}
}

// Ended tells whether nobody listens any more.
func (s *Stack[T]) Ended() bool { return s.ended }

// Count returns how many values were passed on.
func (s *Stack[T]) Count() int { return s.n }
