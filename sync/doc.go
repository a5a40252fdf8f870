// Package sync copies content between a [layout.Source] and registries.
//
// [Push] makes a repository hold what a layout has: it first finds out what is
// missing, then sends blobs and manifests by digest, children before parents,
// and moves the tags last. Where all tags name one root, the first of them takes
// it to the registry. [OpenSource] reads a repository, a docker-archive or a
// directory of containers/image as a layout. Package sync/publish is for many
// machines that publish parts of one version at the same time.
//
// # What a push promises
//
// No tag names content that is not complete at the registry. If a push fails
// or is canceled, every tag that it had moved is put back, unless somebody
// else has moved it since, and the [Report] says how each tag stands. There is
// no transaction in the distribution specification, so a reader may see some
// of the tags moved and others not, for the moment in which they move.
//
// Entries of an index that the repository has under a tag, and the layout has
// not, are never dropped unless the caller says so: see [ForeignError].
//
// # Requests
//
// A tag that already names the layout's digest costs one HEAD, and nothing
// else is sent for it. Otherwise each manifest or index that is missing costs a
// HEAD and a PUT, each present one that a missing one names a HEAD, each blob
// of a missing manifest a POST, and a PUT if it was missing too; each root
// another HEAD, and each tag a PUT, one of which is that of the root if there is
// but one. Logging in costs one request more, or three with a token server; a
// registry without checked HTTPS one more.
package sync
