package compress

// NewReaderFloor is [NewReaderOptions] with another [RatioFloor].
var NewReaderFloor = newReader
