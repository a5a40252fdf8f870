// Package image makes container images in a layout: layers of directories and
// tar archives, and the config and manifest that go with them.
//
// # Written bytes
//
// The same input gives the same bytes; docs/format.md says which. A time reaches
// them only if the caller gives one.
package image
