package compress

// NewReaderFloor is [NewReaderOptions] with another [RatioFloor].
var NewReaderFloor = newReader

// ZstdFrame is how much input becomes one frame.
const ZstdFrame = zstdFrame
