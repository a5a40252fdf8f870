package main

import (
	"encoding/hex"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout/diff"
	"github.com/gardenlinux/gloci-layout/layout/diff/difftext"
	"github.com/gardenlinux/gloci-layout/layout/diff/filediff"
)

type diffResult struct {
	Type      string       `json:"type" doc:"difference"`
	Level     string       `json:"level" doc:"refs, index, manifest, config, layer, file or package"`
	Kind      string       `json:"kind" doc:"added, removed, changed, moved (a ref name), renamed, reordered, recompressed (the same content), upgraded or downgraded (a package)"`
	Ref       string       `json:"ref,omitempty" doc:"the ref name of the entry of index.json in which it lies"`
	Entry     string       `json:"entry,omitempty" doc:"what the manifest or index is called: its flavour, ref name, platform, artifact type or the beginning of its digest"`
	Layer     string       `json:"layer,omitempty" doc:"the title of the layer, or layer N"`
	Path      []string     `json:"path,omitempty" doc:"the path of the file, below those of the archives that hold it, outermost first"`
	A         *diffBlob    `json:"a,omitempty" doc:"the content in A, but of files and packages"`
	B         *diffBlob    `json:"b,omitempty" doc:"the content in B"`
	FileA     *diffFile    `json:"fileA,omitempty" doc:"the file in A"`
	FileB     *diffFile    `json:"fileB,omitempty" doc:"the file in B"`
	Bytes     int64        `json:"bytes,omitempty" doc:"of an entry that one side lacks: the size of all its content, each blob counted once"`
	Fields    []diffField  `json:"fields,omitempty" doc:"what differs"`
	Ranges    []diffRange  `json:"ranges,omitempty" doc:"the first 16 runs of bytes that differ, in the decompressed content"`
	Differing int64        `json:"differingBytes,omitempty" doc:"how many bytes differ, as far as the shorter content goes"`
	Text      string       `json:"text,omitempty" doc:"a unified diff, with --text"`
	Package   *diffPackage `json:"package,omitempty" doc:"the package"`
}

type diffBlob struct {
	Digest    digest.Digest `json:"digest" doc:"its digest"`
	Size      int64         `json:"size" doc:"its size in bytes"`
	MediaType string        `json:"mediaType" doc:"its media type"`
}

type diffFile struct {
	Type     string        `json:"type" doc:"file, directory, symlink, link (hard), char device, block device, fifo or other"`
	Mode     string        `json:"mode" doc:"permissions, in octal"`
	UID      int           `json:"uid" doc:"number of the user"`
	GID      int           `json:"gid" doc:"number of the group"`
	User     string        `json:"user,omitempty" doc:"name of the user, as the archive has it"`
	Group    string        `json:"group,omitempty" doc:"name of the group"`
	Size     int64         `json:"size" doc:"its size in bytes"`
	Modified string        `json:"mtime" doc:"when it was modified (RFC 3339)"`
	Link     string        `json:"link,omitempty" doc:"the target of a link"`
	Digest   digest.Digest `json:"digest,omitempty" doc:"of its content, where that differs or one side has none"`
}

type diffField struct {
	Name string  `json:"name" doc:"a JSON pointer into the document, or type, mode, uid, gid, user, group, size, mtime, atime, ctime, link, device, xattr NAME, content, encoding, unreadable, absent, refName"`
	A    *string `json:"a,omitempty" doc:"its value in A; JSON where it is no string"`
	B    *string `json:"b,omitempty" doc:"its value in B"`
}

type diffRange struct {
	Offset int64  `json:"offset" doc:"of the first byte"`
	Length int64  `json:"length" doc:"how many bytes"`
	A      string `json:"a" doc:"the first 16 bytes at most, in hexadecimal"`
	B      string `json:"b" doc:"those of B"`
	Where  string `json:"where,omitempty" doc:"the partition or the field of a PE header in which it lies"`
}

type diffPackage struct {
	Name         string `json:"name" doc:"its name"`
	Architecture string `json:"architecture,omitempty" doc:"its architecture"`
	A            string `json:"a,omitempty" doc:"its version in A"`
	B            string `json:"b,omitempty" doc:"its version in B"`
}

type diffSummary struct {
	Type        string         `json:"type" doc:"summary"`
	Equal       bool           `json:"equal" doc:"nothing differs that counts"`
	Differences int            `json:"differences" doc:"how many objects came before"`
	Levels      map[string]int `json:"levels,omitempty" doc:"how many of each level"`
	Manifests   int            `json:"manifests" doc:"manifests of A and B, those that were matched counted once; 0 with --level refs or index"`
	Changed     int            `json:"changed" doc:"of them, how many differ, added and removed ones included"`
	Added       int            `json:"added" doc:"how many only B has"`
	Removed     int            `json:"removed" doc:"how many only A has"`
	Shared      int64          `json:"shared" doc:"bytes of blobs that both have"`
	OnlyA       int64          `json:"onlyA" doc:"bytes of blobs that only A has"`
	OnlyB       int64          `json:"onlyB" doc:"bytes of blobs that only B has: what has to be carried to a place that has A"`
	Complete    bool           `json:"complete" doc:"manifests and shared count also what is equal; it is not opened when both are registries"`
}

// newDiffSummary makes it of the same numbers, under their names in JSON.
func newDiffSummary(s *diff.Summary, changes int) diffSummary {
	return diffSummary(difftext.NewSummary(s, changes))
}

// text is the summary in one line.
func (s diffSummary) text() string { return difftext.Summary(s).String() }

// diffJSON prints one object for each difference.
type diffJSON struct{ env *env }

func (p *diffJSON) change(ch *diff.Change) error { return p.env.emitJSON(newDiffResult(ch)) }

func (p *diffJSON) end(sum diffSummary) error { return p.env.emitJSON(sum) }

func newDiffResult(ch *diff.Change) diffResult {
	r := diffResult{
		Type: "difference", Level: ch.Level.String(), Kind: string(ch.Kind), Ref: ch.Ref, Entry: ch.Entry, Layer: ch.Layer,
		A: newDiffBlob(ch.A), B: newDiffBlob(ch.B), FileA: newDiffFile(ch.FileA), FileB: newDiffFile(ch.FileB),
		Bytes: ch.Bytes, Differing: ch.Differing, Text: ch.Text,
	}
	for _, p := range ch.Path {
		r.Path = append(r.Path, strings.ToValidUTF8(p, "\ufffd"))
	}
	for _, f := range ch.Fields {
		r.Fields = append(r.Fields, diffField(f))
	}
	for _, x := range ch.Ranges {
		r.Ranges = append(r.Ranges, diffRange{x.Offset, x.Length, hex.EncodeToString(x.A), hex.EncodeToString(x.B), x.Where})
	}
	if p := ch.Package; p != nil {
		r.Package = &diffPackage{p.Name, p.Architecture, p.A, p.B}
	}
	return r
}

func newDiffBlob(desc *ocispec.Descriptor) *diffBlob {
	if desc == nil {
		return nil
	}
	return &diffBlob{desc.Digest, desc.Size, desc.MediaType}
}

func newDiffFile(f *filediff.File) *diffFile {
	if f == nil {
		return nil
	}
	return &diffFile{
		Type: string(f.Type), Mode: difftext.Mode(f.Mode), UID: f.UID, GID: f.GID, User: f.Owner, Group: f.Group,
		Size: f.Size, Modified: f.ModTime.UTC().Format(time.RFC3339Nano), Link: f.Link, Digest: f.Digest,
	}
}
