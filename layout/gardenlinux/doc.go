// Package gardenlinux turns the output of a Garden Linux build into the content
// of an OCI image layout. It is the only package that knows Garden Linux: its
// names, media types, annotations and the files that a build leaves behind.
//
// # From a build directory to an index
//
// [ReadBuild] reads a directory of {base}.* files, one base per build, checks
// what it finds and returns a [Flavor] for each. [StageAll] (or [Flavor.Stage])
// writes their files to a layout.Stage. It returns one index entry per flavor:
// the artifact manifest, whose layers are the files. A flavor with a .oci file
// has a second one: the container image in that file, as linux/{arch}.
//
// # What is written
//
// Manifests and entries have the shape that the readers of published Garden
// Linux indexes expect: gardenlinux-update, the ironcore boot-operator, glci
// and podman. The config is the two bytes {}. A layer is titled with the base
// name of its file. Layers are in the order of [Suffixes], those of one suffix
// by name, those without a media type last; so neither the order of files in a
// directory nor the clock reaches a byte.
package gardenlinux
