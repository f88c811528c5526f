package client

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/vss-cloud/vss-cloud/api/vsspb"
)

// FuzzAnswer: whatever a server sends, an answer is a message that encodes again, or an Error; and an error
// has a code that the contract knows.
func FuzzAnswer(f *testing.F) {
	for _, m := range []proto.Message{
		&vsspb.GetObjectResponse{Value: &vsspb.KeyValue{Key: "k", Version: 1, Value: []byte("v")}},
		&vsspb.ListKeyVersionsResponse{
			KeyVersions: []*vsspb.KeyValue{{Key: "k", Version: -1}}, NextPageToken: proto.String(""), GlobalVersion: proto.Int64(1),
		},
		&vsspb.ErrorResponse{ErrorCode: vsspb.ErrorCode_CONFLICT_EXCEPTION, Message: "m"},
	} {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte("<html>"))
	f.Add([]byte{0x12, 0xff, 0xff, 0xff, 0xff, 0x0f})                                     // a length beyond the body
	f.Add([]byte{0x13, 0x14})                                                             // a group
	f.Add([]byte{0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})       // a varint of 10 bytes
	f.Add([]byte{0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}) // and of 11
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, answer := range []proto.Message{
			new(vsspb.GetObjectResponse), new(vsspb.PutObjectResponse), new(vsspb.ListKeyVersionsResponse),
		} {
			if err := decodeAnswer(raw, answer); err != nil {
				if !errors.Is(err, ErrInternalServer) {
					t.Errorf("%v", err)
				}
			} else if _, err := proto.Marshal(answer); err != nil {
				t.Errorf("%T does not encode again: %v", answer, err)
			}
		}
		e := decodeError(raw)
		if name := e.Code.String(); e.Code == vsspb.ErrorCode_UNKNOWN || vsspb.ErrorCode_value[name] != int32(e.Code) {
			t.Errorf("code %d", e.Code)
		}
		_ = e.Error()
	})
}

func TestNoMoreIsReadOfAnAnswerThanTheBound(t *testing.T) {
	var requests atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.Header().Set("vss-protocol-version", "0")
		for range 101 { // chunked: no Content-Length tells
			_, _ = w.Write(make([]byte, 10))
			_ = http.NewResponseController(w).Flush()
		}
	}))
	defer s.Close()
	c, err := New(Config{BaseURL: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdleConnections()
	c.maxAnswer = 1000
	_, err = c.GetObject(t.Context(), &vsspb.GetObjectRequest{Key: "k"})
	if !errors.Is(err, ErrProtocol) || requests.Load() != 1 {
		t.Errorf("%v after %d attempts, want ErrProtocol after 1", err, requests.Load())
	}
}
