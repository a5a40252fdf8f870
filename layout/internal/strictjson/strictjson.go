// Package strictjson reads JSON that came from disk or network and edits it
// without losing anything.
//
// It accepts less than encoding/json: one value, valid UTF-8, no name twice in
// one object, bounded depth and size (image-spec considerations.md,
// "Canonicalization" and "Extensibility"). It keeps the bytes of every value
// that it does not interpret, so that unknown fields survive an edit.
package strictjson

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of a document. A document that passes one is an error.
const (
	MaxBytes   = 4 << 20 // 4 MiB: what registries and their clients accept for a manifest
	MaxDepth   = 32
	MaxMembers = 4096 // names in one object
	MaxItems   = 4096 // items in one array
)

// ErrSyntax is the cause of every error of this package.
var ErrSyntax = errors.New("not strict JSON")

// A Kind tells what a value is.
type Kind byte

// The kinds of JSON values.
const (
	Null   Kind = 'n'
	Bool   Kind = 'b'
	Number Kind = '0'
	String Kind = '"'
	Array  Kind = '['
	Object Kind = '{'
)

// A Member is a name of an object and the bytes of its value, white space
// around it removed.
type Member struct {
	Name  string
	Value Value
}

// A Value is the text of one valid JSON value. Only [Parse] and the functions
// that split or encode values make one.
type Value []byte

// Kind tells what v is.
func (v Value) Kind() Kind {
	if len(v) == 0 {
		return Null
	}
	switch c := v[0]; c {
	case '{', '[', '"', 'n':
		return Kind(c)
	case 't', 'f':
		return Bool
	default:
		return Number
	}
}

// Parse checks that data is one strict JSON value and returns it without the
// white space around it. The value shares data's memory.
func Parse(data []byte) (Value, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrSyntax, len(data), MaxBytes)
	}
	if !utf8.Valid(data) {
		return nil, fmt.Errorf("%w: invalid UTF-8", ErrSyntax)
	}
	s := scanner{data: data}
	v, err := s.value(1)
	if err != nil {
		return nil, err
	}
	s.space()
	if s.pos != len(data) {
		return nil, s.errorf("data after the value")
	}
	return v, nil
}

// Members splits an object; order and values are as they stand.
func (v Value) Members() ([]Member, error) {
	if v.Kind() != Object {
		return nil, fmt.Errorf("%w: want an object, have %s", ErrSyntax, v.describe())
	}
	var members []Member
	for s := (splitter{v, 1}); s.more('}'); {
		name, err := unquote(s.value())
		if err != nil {
			return nil, err
		}
		s.more(':')
		members = append(members, Member{name, s.value()})
	}
	return members, nil
}

// Items splits an array.
func (v Value) Items() ([]Value, error) {
	if v.Kind() != Array {
		return nil, fmt.Errorf("%w: want an array, have %s", ErrSyntax, v.describe())
	}
	var items []Value
	for s := (splitter{v, 1}); s.more(']'); {
		items = append(items, s.value())
	}
	return items, nil
}

// A splitter steps through the text of a valid object or array. It need not
// check what the scanner has checked, so it is several times as fast.
type splitter struct {
	data []byte
	pos  int
}

// more skips white space, commas and colons; false at the end.
func (s *splitter) more(end byte) bool {
	for {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r', ',', ':':
			s.pos++
		default:
			return s.data[s.pos] != end
		}
	}
}

// value returns the value that begins here.
func (s *splitter) value() Value {
	start, depth := s.pos, 0
	for {
		switch s.data[s.pos] {
		case '{', '[':
			depth++
			s.pos++
		case '}', ']':
			depth--
			s.pos++
		case '"':
			s.pos++
			for s.data[s.pos] != '"' {
				if s.data[s.pos] == '\\' {
					s.pos++
				}
				s.pos++
			}
			s.pos++
		case ' ', '\t', '\n', '\r', ',', ':':
			s.pos++
			continue
		default: // a number or a word
			for s.pos < len(s.data) && !isDelimiter(s.data[s.pos]) {
				s.pos++
			}
		}
		if depth == 0 {
			return Value(s.data[start:s.pos:s.pos])
		}
	}
}

func isDelimiter(c byte) bool {
	switch c {
	case ' ', '\t', '\n', '\r', ',', ':', '}', ']':
		return true
	}
	return false
}

// Text returns the string that v is.
func (v Value) Text() (string, error) {
	if v.Kind() != String {
		return "", fmt.Errorf("%w: want a string, have %s", ErrSyntax, v.describe())
	}
	return unquote(v)
}

// Int returns the whole number that v is. Fractions and exponents are errors,
// also where their value is whole.
func (v Value) Int() (int64, error) {
	if v.Kind() != Number {
		return 0, fmt.Errorf("%w: want a number, have %s", ErrSyntax, v.describe())
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %s is not a whole number of 64 bits", ErrSyntax, clip(string(v)))
	}
	return n, nil
}

func (v Value) describe() string {
	switch v.Kind() {
	case Null:
		return "null"
	case Bool:
		return "a boolean"
	case Number:
		return "a number"
	case String:
		return "a string"
	case Array:
		return "an array"
	default:
		return "an object"
	}
}

// scanner checks one value in a single pass.
type scanner struct {
	data []byte
	pos  int
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

func (s *scanner) object(depth int) error {
	s.pos++ // {
	if s.peek() == '}' {
		s.pos++
		return nil
	}
	// Most objects have few names: a linear search beats a map until then.
	var few []string
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
		name, err := unquote(s.data[start:s.pos])
		if err != nil {
			return err
		}
		duplicate := seen[name]
		for _, old := range few {
			duplicate = duplicate || old == name
		}
		if duplicate {
			return s.errorf("name %s stands twice in one object", clip(strconv.Quote(name)))
		}
		switch {
		case seen != nil:
			seen[name] = true
		case len(few) < 16:
			few = append(few, name)
		default:
			seen = map[string]bool{name: true}
			for _, old := range few {
				seen[old] = true
			}
			few = nil
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
