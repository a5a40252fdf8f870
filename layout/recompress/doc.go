// Package recompress makes layers that hold the same archives in another
// compression, and the manifests and indexes that name them.
//
// # One pass
//
// A layer is read, verified, uncompressed, hashed (its diffID), compressed,
// hashed (its digest) and written at once. Layers that manifests share are
// compressed once, several layers at the same time, and memory is bounded
// whatever their sizes are: [compress.NewWriter] says how.
//
// # What changes
//
// Digest, size and media type of a layer; by them its manifest, and with it
// every index that leads there, in one transaction of package layout. DiffIDs,
// and so the config of an image, stay. The annotations of a layer stay but for
// those that describe its compressed bytes ([Layer.Dropped]). The entry of an
// image in an index tells by an annotation whether its layers are zstd, as
// containers/image wants it.
//
// # What is refused
//
// A layer whose readers could not read the result is kept as it is; [Layer.Kept]
// says why. See [Rules].
package recompress
