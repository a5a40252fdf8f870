// Package strictjson reads JSON that came from disk or network and edits it
// without losing anything.
//
// It accepts less than encoding/json: one value, valid UTF-8, no name twice in
// one object, bounded depth and size (image-spec considerations.md,
// "Canonicalization" and "Extensibility"). It keeps the bytes of every value
// that it does not interpret, so that unknown fields survive an edit.
package strictjson

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
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

// A Value is the text of one valid JSON value. Only [Parse], [Parsed] and the
// functions that split or encode values make one.
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

// Parsed returns the value of data that [Parse] has accepted before.
func Parsed(data []byte) Value { return bytes.Trim(data, " \t\r\n") }

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
		if members == nil {
			// Most objects of a manifest have no more than six, and short ones fewer.
			members = make([]Member, 0, min(6, 1+len(v)/32))
		}
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
