package api_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/storage"
)

// FuzzDecode sends any bytes as the body of any call. The store that answers holds them to the rules that
// every store does, and to what they say in protobuf.
func FuzzDecode(f *testing.F) {
	for i, c := range calls {
		f.Add(byte(i), encode(f, c.body))
	}
	var asked any // what the store was given; fuzzing makes one request at a time
	p := start(f, over(fake{
		get: func(_ context.Context, ks storage.Keyspace, key string, _ storage.Admit) (storage.Object, error) {
			asked = []any{ks.StoreID(), key}
			return storage.Object{Key: key, Version: 1, Value: []byte(key)}, storage.CheckKey(key)
		},
		put: func(_ context.Context, ks storage.Keyspace, batch storage.Batch) error {
			asked = []any{ks.StoreID(), batch}
			return batch.Check()
		},
		delete: func(_ context.Context, ks storage.Keyspace, item storage.KeyVersion) error {
			asked = []any{ks.StoreID(), item}
			return item.Check()
		},
		list: func(_ context.Context, ks storage.Keyspace, req storage.ListRequest) (storage.Page, error) {
			asked = []any{ks.StoreID(), req}
			return storage.Page{Keys: []storage.KeyVersion{{Key: req.Prefix, Version: 1}}, NextToken: "next"}, req.Check()
		},
	}))
	w := p.wallet(f, "acme", 1)
	token := w.token(f)

	f.Fuzz(func(t *testing.T, call byte, body []byte) {
		c := calls[int(call)%len(calls)]
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, w.base+"/"+c.name, bytes.NewReader(body))
		r.Header.Set("Authorization", token)
		recorder := httptest.NewRecorder()
		asked = nil
		p.server.Handler().ServeHTTP(recorder, r)
		resp := recorder.Result()
		resp.Request = r
		resp.Header.Set("Date", time.Now().UTC().Format(http.TimeFormat)) // net/http's part
		a := read(t, resp)
		if a.status != 200 {
			a.want(t, 400, invalid)
		}

		says := c.body.ProtoReflect().New().Interface()
		if err := proto.Unmarshal(body, says); err != nil {
			a.want(t, 400, invalid)
			if asked != nil {
				t.Errorf("the store was given %v", asked)
			}
			return
		}
		if want := given(says); asked != nil && !reflect.DeepEqual(asked, want) {
			t.Errorf("the store was given %v, want %v", asked, want)
		}
		if a.status != 200 {
			return
		}
		if asked == nil {
			t.Error("done without the store")
		}
		switch says.(type) {
		case *vsspb.GetObjectRequest:
			a.wantOK(t, &vsspb.GetObjectResponse{})
		case *vsspb.ListKeyVersionsRequest:
			a.wantOK(t, &vsspb.ListKeyVersionsResponse{})
		default:
			a.wantDone(t)
		}
	})
}

// given is what a store must be given for a request.
func given(req proto.Message) any {
	switch req := req.(type) {
	case *vsspb.GetObjectRequest:
		return []any{req.GetStoreId(), req.GetKey()}
	case *vsspb.PutObjectRequest:
		batch := storage.Batch{GlobalVersion: req.GlobalVersion, Writes: []storage.Object{}, Deletes: []storage.KeyVersion{}}
		for _, kv := range req.GetTransactionItems() {
			batch.Writes = append(batch.Writes, storage.Object{Key: kv.GetKey(), Version: kv.GetVersion(), Value: kv.GetValue()})
		}
		for _, kv := range req.GetDeleteItems() {
			batch.Deletes = append(batch.Deletes, storage.KeyVersion{Key: kv.GetKey(), Version: kv.GetVersion()})
		}
		return []any{req.GetStoreId(), batch}
	case *vsspb.DeleteObjectRequest:
		kv := req.GetKeyValue()
		return []any{req.GetStoreId(), storage.KeyVersion{Key: kv.GetKey(), Version: kv.GetVersion()}}
	case *vsspb.ListKeyVersionsRequest:
		return []any{req.GetStoreId(), storage.ListRequest{Prefix: req.GetKeyPrefix(), PageSize: int(req.GetPageSize()), Token: req.GetPageToken()}}
	default:
		panic("no request")
	}
}
