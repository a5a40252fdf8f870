package strictjson

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// scanner checks one value in a single pass.
type scanner struct {
	data []byte
	pos  int
	// names are those of the objects that are open, the outermost first, decoded.
	// Most are part of data.
	names [][]byte
}

func (s *scanner) errorf(format string, args ...any) error {
	return fmt.Errorf("%w: offset %d: %s", ErrSyntax, s.pos, fmt.Sprintf(format, args...))
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek skips white space and returns the next byte, 0 at the end (a 0 byte in
// the text is no JSON either).
func (s *scanner) peek() byte {
	s.space()
	if s.pos == len(s.data) {
		return 0
	}
	return s.data[s.pos]
}

func (s *scanner) value(depth int) (Value, error) {
	if depth > MaxDepth {
		return nil, s.errorf("nested more than %d deep", MaxDepth)
	}
	c := s.peek()
	start := s.pos
	var err error
	switch {
	case c == '{':
		err = s.object(depth)
	case c == '[':
		err = s.array(depth)
	case c == '"':
		err = s.string()
	case c == '-' || '0' <= c && c <= '9':
		err = s.number()
	case c == 't':
		err = s.word("true")
	case c == 'f':
		err = s.word("false")
	case c == 'n':
		err = s.word("null")
	case c == 0 && s.pos == len(s.data):
		err = s.errorf("unexpected end")
	default:
		err = s.errorf("unexpected %q", rune(c))
	}
	if err != nil {
		return nil, err
	}
	return Value(s.data[start:s.pos:s.pos]), nil
}

// fewNames is how many names of an object are compared one by one.
const fewNames = 16

func (s *scanner) object(depth int) error {
	s.pos++ // {
	if s.peek() == '}' {
		s.pos++
		return nil
	}
	// Most objects have few names: a linear search beats a map until then.
	first := len(s.names)
	var seen map[string]bool
	for n := 1; ; n++ {
		if n > MaxMembers {
			return s.errorf("more than %d names in one object", MaxMembers)
		}
		if s.peek() != '"' {
			return s.errorf("want a name")
		}
		start := s.pos
		if err := s.string(); err != nil {
			return err
		}
		name := s.data[start+1 : s.pos-1]
		if bytes.IndexByte(name, '\\') >= 0 {
			text, err := unquote(s.data[start:s.pos])
			if err != nil {
				return err
			}
			name = []byte(text)
		}
		duplicate := seen[string(name)]
		for _, old := range s.names[first:] {
			duplicate = duplicate || bytes.Equal(old, name)
		}
		if duplicate {
			return s.errorf("name %s stands twice in one object", clip(strconv.Quote(string(name))))
		}
		switch {
		case seen != nil:
			seen[string(name)] = true
		case len(s.names)-first < fewNames:
			s.names = append(s.names, name)
		default:
			seen = map[string]bool{string(name): true}
			for _, old := range s.names[first:] {
				seen[string(old)] = true
			}
			s.names = s.names[:first]
		}
		if s.peek() != ':' {
			return s.errorf("want a colon after a name")
		}
		s.pos++
		if _, err := s.value(depth + 1); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.pos++
		case '}':
			s.pos++
			s.names = s.names[:first]
			return nil
		default:
			return s.errorf("want a comma or the end of the object")
		}
	}
}

func (s *scanner) array(depth int) error {
	s.pos++ // [
	if s.peek() == ']' {
		s.pos++
		return nil
	}
	for n := 1; ; n++ {
		if n > MaxItems {
			return s.errorf("more than %d items in one array", MaxItems)
		}
		if _, err := s.value(depth + 1); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.pos++
		case ']':
			s.pos++
			return nil
		default:
			return s.errorf("want a comma or the end of the array")
		}
	}
}

func (s *scanner) string() error {
	s.pos++ // "
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			return nil
		case c == '\\':
			s.pos++
			if s.pos == len(s.data) {
				return s.errorf("unexpected end")
			}
			switch s.data[s.pos] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				s.pos++
			case 'u':
				if err := s.escape(); err != nil {
					return err
				}
			default:
				return s.errorf("unknown escape")
			}
		case c < 0x20:
			return s.errorf("control character in a string")
		default:
			s.pos++
		}
	}
	return s.errorf("unexpected end")
}

// escape reads uXXXX, and its second half where it is a surrogate. A lone
// surrogate is an error: readers disagree on what it means.
func (s *scanner) escape() error {
	r, ok := hex4(s.data, s.pos+1)
	if !ok {
		return s.errorf("bad \\u escape")
	}
	s.pos += 5
	switch {
	case r >= 0xdc00 && r < 0xe000:
		return s.errorf("lone surrogate")
	case r >= 0xd800 && r < 0xdc00:
		if s.pos+6 > len(s.data) || s.data[s.pos] != '\\' || s.data[s.pos+1] != 'u' {
			return s.errorf("lone surrogate")
		}
		low, ok := hex4(s.data, s.pos+2)
		if !ok || low < 0xdc00 || low >= 0xe000 {
			return s.errorf("lone surrogate")
		}
		s.pos += 6
	}
	return nil
}

func hex4(data []byte, at int) (rune, bool) {
	if at+4 > len(data) {
		return 0, false
	}
	n, err := strconv.ParseUint(string(data[at:at+4]), 16, 32)
	if err != nil || strings.ContainsAny(string(data[at:at+4]), "_+-") {
		return 0, false
	}
	return rune(n), true
}

func (s *scanner) number() error {
	digits := func() bool {
		start := s.pos
		for s.pos < len(s.data) && '0' <= s.data[s.pos] && s.data[s.pos] <= '9' {
			s.pos++
		}
		return s.pos > start
	}
	at := func(c byte) bool { return s.pos < len(s.data) && s.data[s.pos] == c }
	if at('-') {
		s.pos++
	}
	if at('0') {
		s.pos++
	} else if !digits() {
		return s.errorf("bad number")
	}
	if at('.') {
		s.pos++
		if !digits() {
			return s.errorf("bad number")
		}
	}
	if at('e') || at('E') {
		s.pos++
		if at('+') || at('-') {
			s.pos++
		}
		if !digits() {
			return s.errorf("bad number")
		}
	}
	return nil
}

func (s *scanner) word(w string) error {
	if !strings.HasPrefix(string(s.data[s.pos:min(len(s.data), s.pos+len(w))]), w) {
		return s.errorf("unexpected text")
	}
	s.pos += len(w)
	return nil
}

// clip keeps text of a hostile document short in messages.
func clip(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}
