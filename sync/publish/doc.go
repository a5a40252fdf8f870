// Package publish makes manifests parts of a version of a repository, beside
// what other machines publish at the same time.
//
// The tags are the truth: each part has a tag of its own, which a [Scheme] gives
// it, and the index under the tag of the version is made of what these tags
// name. [Run] sends the content by digest, moves the tags of its parts, and then
// reads and writes the index until it is what the tags say. It needs no lock, and
// no registry that looks at conditions.
//
// # What a run promises
//
// No tag names content that is not complete at the registry. When no publisher
// is at work, nothing that was published is missing from the index, and nothing
// that was removed is there. If a run fails or is canceled, its own tags are put
// back where nobody else has moved them since, and the [Report] says how each
// stands. After a publisher was killed, a run without roots restores all this.
//
// docs/design.md, "Publishing by many machines", says why that holds, and what
// does not; docs/publish.pml is a model of it.
package publish
