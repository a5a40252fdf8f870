package filediff

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/gob"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
)

// A pending holds the members of one archive whose counterparts have not come
// yet: in memory until the comparer's limit, then in its spill. What stays in
// memory of one that is spilled are some 100 bytes.
type pending struct {
	memory  map[string][]*kept     // oldest first
	spilled map[[16]byte][]spilled // by a hash of the name
	n       int64                  // bytes in memory
}

type kept struct {
	seq    int
	h      *tar.Header
	body   part
	digest digest.Digest
	lost   bool // of the content there is but the digest
}

type spilled struct {
	record, body part
}

// headerCost is about what a header takes in memory, its texts apart.
const headerCost = 512

func nameHash(name string) (h [16]byte) {
	sum := sha256.Sum256([]byte(name))
	return [16]byte(sum[:16])
}

func (p *pending) has(name string) bool {
	if len(p.memory[name]) > 0 {
		return true
	}
	return len(p.spilled) > 0 && len(p.spilled[nameHash(name)]) > 0
}

// put reads the content of m and keeps both.
func (p *pending) put(c *comparer, m *member) error {
	k := &kept{seq: m.seq, h: m.h}
	cost := int64(headerCost + 2*len(m.name) + len(m.h.Linkname))
	for name, value := range m.h.PAXRecords {
		cost += int64(len(name) + len(value))
	}
	room := c.opts.Memory - c.held
	if typeOf(m.h) == TypeFile {
		hash := sha256.New()
		r := io.TeeReader(m.content, hash)
		if m.h.Size <= smallFile && cost+m.h.Size <= room {
			data := make([]byte, m.h.Size)
			if _, err := io.ReadFull(r, data); err != nil {
				return err
			}
			k.body = part{data: data, size: m.h.Size}
			cost += m.h.Size
		} else if c.spill.size+m.h.Size > c.opts.MaxSpill {
			k.lost = true
			if _, err := io.Copy(io.Discard, r); err != nil {
				return err
			}
		} else {
			var err error
			if k.body, err = c.spill.write(r); err != nil {
				return err
			}
		}
		k.digest = digest.NewDigest(digest.SHA256, hash)
	}
	if cost <= room {
		if p.memory == nil {
			p.memory = map[string][]*kept{}
		}
		p.memory[m.name] = append(p.memory[m.name], k)
		p.n += cost
		c.held += cost
		return nil
	}
	return p.spillRecord(c, m.name, k)
}

// A record is what the spill holds of a member.
type record struct {
	Name   string
	Seq    int
	Header tar.Header
	Digest digest.Digest
	Lost   bool
}

func (p *pending) spillRecord(c *comparer, name string, k *kept) error {
	var b bytes.Buffer
	h := *k.h
	h.Xattrs = nil //nolint:staticcheck // they are in PAXRecords too
	if err := gob.NewEncoder(&b).Encode(record{name, k.seq, h, k.digest, k.lost}); err != nil {
		return fmt.Errorf("spill: %w", err)
	}
	rec, err := c.spill.write(&b)
	if err != nil {
		return err
	}
	if p.spilled == nil {
		p.spilled = map[[16]byte][]spilled{}
	}
	key := nameHash(name)
	p.spilled[key] = append(p.spilled[key], spilled{rec, k.body})
	return nil
}

func (s spilled) load() (*member, error) {
	var r record
	if err := gob.NewDecoder(s.record.reader()).Decode(&r); err != nil {
		return nil, fmt.Errorf("spill: %w", err)
	}
	return &member{name: r.Name, seq: r.Seq, h: &r.Header, content: s.body.reader(), digest: r.Digest, lost: r.Lost}, nil
}

// take returns the oldest member of this name, which has to be there.
func (p *pending) take(c *comparer, name string) (*member, error) {
	if list := p.memory[name]; len(list) > 0 {
		k := list[0]
		if len(list) == 1 {
			delete(p.memory, name)
		} else {
			p.memory[name] = list[1:]
		}
		freed := int64(headerCost+2*len(name)+len(k.h.Linkname)) + int64(len(k.body.data))
		for name, value := range k.h.PAXRecords {
			freed += int64(len(name) + len(value))
		}
		p.n -= freed
		c.held -= freed
		return &member{name: name, seq: k.seq, h: k.h, content: k.body.reader(), digest: k.digest, lost: k.lost}, nil
	}
	key := nameHash(name)
	list := p.spilled[key]
	if len(list) == 1 {
		delete(p.spilled, key)
	} else {
		p.spilled[key] = list[1:]
	}
	return list[0].load()
}

// all yields what is left, in the order of the archive: first what is in memory,
// then what was spilled.
func (p *pending) all() iter.Seq2[*member, error] {
	return func(yield func(*member, error) bool) {
		type item struct {
			name string
			*kept
		}
		var items []item
		for name, list := range p.memory {
			for _, k := range list {
				items = append(items, item{name, k})
			}
		}
		slices.SortFunc(items, func(x, y item) int { return x.seq - y.seq })
		for _, i := range items {
			if !yield(&member{name: i.name, seq: i.seq, h: i.h, content: i.body.reader(), digest: i.digest, lost: i.lost}, nil) {
				return
			}
		}
		var lists []spilled
		for list := range maps.Values(p.spilled) {
			lists = append(lists, list...)
		}
		slices.SortFunc(lists, func(x, y spilled) int { return int(min(max(x.record.off-y.record.off, -1), 1)) })
		for _, s := range lists {
			m, err := s.load()
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// free gives the memory back.
func (p *pending) free(c *comparer) {
	c.held -= p.n
	p.n, p.memory, p.spilled = 0, nil, nil
}
