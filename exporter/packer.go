package exporter

import "tetracast/datagram"

// newPacker returns what makes the datagrams of a stream.
func newPacker(_ *stream, d Destination) (datagram.Packer, error) {
	return datagram.NewJSON(d.MaxDatagram), nil
}

// setSums gives the packer the figures for the datagrams to come.
func (s *stream) setSums(in *intake) {
	if p, ok := s.packer.(interface{ SetSums(datagram.Sums) }); ok {
		p.SetSums(s.sums(in))
	}
}
