package jwt

import (
	"bytes"
	"encoding/json"
	"iter"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// JSON as it is read here. encoding/json would take the last of two members of one name, a name in another
// case, and U+FFFD for bytes and escapes that are no text: each of them another way to say who somebody is.

// member is one of an object, in place: name without quotes and escapes, value as it was written.
type member struct{ name, value []byte }

// readObject appends the members of the object that text is to into. It says false where text is anything
// else, is not UTF-8, or has two members of one name.
func readObject(text []byte, into []member) ([]member, bool) {
	if !utf8.Valid(text) || !json.Valid(text) {
		return nil, false
	}
	rest := skipSpace(text)
	if rest[0] != '{' {
		return nil, false
	}
	for rest = skipSpace(rest[1:]); rest[0] != '}'; {
		var quoted, value []byte
		quoted, rest = cutValue(rest)
		value, rest = cutValue(skipSpace(skipSpace(rest)[1:]))
		name, ok := unquote(quoted)
		if !ok {
			return nil, false
		}
		into = append(into, member{name, value})
		if rest = skipSpace(rest); rest[0] == ',' {
			rest = skipSpace(rest[1:])
		}
	}
	return into, distinct(into)
}

// distinct says whether no two members have the same name.
func distinct(members []member) bool {
	if len(members) <= 16 {
		for i, m := range members {
			for _, other := range members[:i] {
				if bytes.Equal(m.name, other.name) {
					return false
				}
			}
		}
		return true
	}
	seen := make(map[string]struct{}, len(members))
	for _, m := range members {
		seen[string(m.name)] = struct{}{}
	}
	return len(seen) == len(members)
}

// elements are those of an array that is part of valid JSON; none where it is something else.
func elements(array []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if !isArray(array) {
			return
		}
		for rest := skipSpace(array[1:]); rest[0] != ']'; {
			var value []byte
			value, rest = cutValue(rest)
			if !yield(value) {
				return
			}
			if rest = skipSpace(rest); rest[0] == ',' {
				rest = skipSpace(rest[1:])
			}
		}
	}
}

func isArray(value []byte) bool { return len(value) > 0 && value[0] == '[' }

func isNull(value []byte) bool { return string(value) == "null" }

func skipSpace(text []byte) []byte {
	for len(text) > 0 && (text[0] == ' ' || text[0] == '\t' || text[0] == '\n' || text[0] == '\r') {
		text = text[1:]
	}
	return text
}

// cutValue splits valid JSON after the value that it begins with.
func cutValue(text []byte) (value, rest []byte) {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			if depth == 0 { // of what the value is in
				return text[:i], text[i:]
			}
			depth--
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 { // after a number or a word
				return text[:i], text[i:]
			}
			continue
		default:
			continue
		}
		if depth == 0 {
			return text[:i+1], text[i+1:]
		}
	}
	return text, nil
}

// unquote is the text of a string that is part of valid JSON in UTF-8, and false for anything else. An escape
// of half a surrogate pair is no text.
func unquote(value []byte) ([]byte, bool) {
	if len(value) == 0 || value[0] != '"' {
		return nil, false
	}
	s := value[1 : len(value)-1]
	if bytes.IndexByte(s, '\\') < 0 {
		return s, true
	}
	text := make([]byte, 0, len(s))
	for len(s) > 0 {
		if s[0] != '\\' {
			text, s = append(text, s[0]), s[1:]
			continue
		}
		c := s[1]
		if c != 'u' {
			if i := bytes.IndexByte([]byte("bfnrt"), c); i >= 0 {
				c = "\b\f\n\r\t"[i]
			}
			text, s = append(text, c), s[2:]
			continue
		}
		r := hexRune(s[2:6])
		s = s[6:]
		if utf16.IsSurrogate(r) {
			if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
				return nil, false
			}
			if r = utf16.DecodeRune(r, hexRune(s[2:6])); r == utf8.RuneError {
				return nil, false
			}
			s = s[6:]
		}
		text = utf8.AppendRune(text, r)
	}
	return text, true
}

// hexRune is what four hexadecimal digits say.
func hexRune(digits []byte) rune {
	n, _ := strconv.ParseUint(string(digits), 16, 32) // valid JSON has no others there
	return rune(n)
}
