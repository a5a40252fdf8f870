package strictjson

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
