package api_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/vss-cloud/vss-cloud/api"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants"
)

func put(items ...*vsspb.KeyValue) *vsspb.PutObjectRequest {
	return &vsspb.PutObjectRequest{StoreId: "s", TransactionItems: items}
}

func item(key string, version int64) *vsspb.KeyValue {
	return &vsspb.KeyValue{Key: key, Version: version, Value: []byte("v")}
}

func items(n int) (all []*vsspb.KeyValue) {
	for i := range n {
		all = append(all, item(fmt.Sprint("item", i), -1))
	}
	return all
}

func TestWhatNoStoreCouldAcceptIsInvalidAndChangesNothing(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	w.put(t, "there", "v").wantDone(t)

	four := "\U0010FFFF" // a character of four bytes
	for _, tc := range []struct {
		name, call string
		body       proto.Message
	}{
		{"get: no key", "getObject", &vsspb.GetObjectRequest{StoreId: "s"}},
		{"get: key of 601 characters", "getObject", &vsspb.GetObjectRequest{StoreId: "s", Key: strings.Repeat("k", 601)}},
		{"get: NUL in the key", "getObject", &vsspb.GetObjectRequest{StoreId: "s", Key: "a\x00b"}},
		{"get: store of 121 characters", "getObject", &vsspb.GetObjectRequest{StoreId: strings.Repeat("s", 121), Key: "k"}},
		{"get: NUL in the store", "getObject", &vsspb.GetObjectRequest{StoreId: "s\x00", Key: "k"}},

		{"put: no key", "putObjects", put(item("", -1))},
		{"put: an empty item", "putObjects", put(&vsspb.KeyValue{})},
		{"put: one good item and one without a key", "putObjects", put(item("good", -1), item("", -1))},
		{"put: key of 601 characters", "putObjects", put(item(strings.Repeat(four, 601), -1))},
		{"put: NUL in a key", "putObjects", put(item("\x00", -1))},
		{"put: NUL in the store", "putObjects", &vsspb.PutObjectRequest{StoreId: "\x00", TransactionItems: items(1)}},
		{"put: store of 121 characters", "putObjects", &vsspb.PutObjectRequest{StoreId: strings.Repeat(four, 121), TransactionItems: items(1)}},
		{"put: version -2", "putObjects", put(item("k", -2))},
		{"put: least version", "putObjects", put(item("k", math.MinInt64))},
		{"put: global version -2", "putObjects", &vsspb.PutObjectRequest{StoreId: "s", GlobalVersion: ptr[int64](-2), TransactionItems: items(1)}},
		{"put: a key twice", "putObjects", put(item("k", -1), item("j", -1), item("k", -1))},
		{"put: a key to delete twice", "putObjects", &vsspb.PutObjectRequest{StoreId: "s", DeleteItems: []*vsspb.KeyValue{item("there", -1), item("there", 1)}}},
		{"put: a key to write and to delete", "putObjects", &vsspb.PutObjectRequest{
			StoreId: "s", TransactionItems: []*vsspb.KeyValue{item("there", -1)}, DeleteItems: []*vsspb.KeyValue{item("there", -1)}}},
		{"put: the reserved key", "putObjects", put(item("global_version", -1))},
		{"put: the reserved key to delete", "putObjects", &vsspb.PutObjectRequest{StoreId: "s", DeleteItems: []*vsspb.KeyValue{item("global_version", -1)}}},
		{"put: version -2 to delete", "putObjects", &vsspb.PutObjectRequest{StoreId: "s", DeleteItems: []*vsspb.KeyValue{item("there", -2)}}},
		{"put: 1001 items", "putObjects", put(items(1001)...)},
		{"put: 1001 items, some to delete", "putObjects", &vsspb.PutObjectRequest{
			StoreId: "s", TransactionItems: items(1000), DeleteItems: []*vsspb.KeyValue{item("there", -1)}}},

		{"delete: no item", "deleteObject", &vsspb.DeleteObjectRequest{StoreId: "s"}},
		{"delete: no key", "deleteObject", &vsspb.DeleteObjectRequest{StoreId: "s", KeyValue: item("", -1)}},
		{"delete: key of 601 characters", "deleteObject", &vsspb.DeleteObjectRequest{StoreId: "s", KeyValue: item(strings.Repeat("k", 601), -1)}},
		{"delete: NUL in the key", "deleteObject", &vsspb.DeleteObjectRequest{StoreId: "s", KeyValue: item("there\x00", -1)}},
		{"delete: the reserved key", "deleteObject", &vsspb.DeleteObjectRequest{StoreId: "s", KeyValue: item("global_version", -1)}},
		{"delete: version -2", "deleteObject", &vsspb.DeleteObjectRequest{StoreId: "s", KeyValue: item("there", -2)}},
		{"delete: store of 121 characters", "deleteObject", &vsspb.DeleteObjectRequest{StoreId: strings.Repeat("s", 121), KeyValue: item("there", -1)}},

		{"list: page size -1", "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "s", PageSize: ptr[int32](-1)}},
		{"list: page size -1 of an empty store", "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "empty", PageSize: ptr[int32](-1)}},
		{"list: least page size", "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "s", PageSize: ptr[int32](math.MinInt32)}},
		{"list: prefix of 601 characters", "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "s", KeyPrefix: ptr(strings.Repeat("k", 601))}},
		{"list: NUL in the prefix", "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "s", KeyPrefix: ptr("th\x00")}},
		{"list: NUL in the store", "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "\x00"}},
		{"list: a token that is none", "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "s", PageToken: ptr("x")}},
		{"list: NUL as the token", "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "s", PageToken: ptr("\x00")}},
		{"list: a token of a million characters", "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "s", PageToken: ptr(strings.Repeat("A", 1_000_000))}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := w.call(t, tc.call, tc.body)
			a.want(t, 400, invalid)
			if message := a.error(t).GetMessage(); len(message) > 1000 {
				t.Errorf("message has %d bytes", len(message))
			}
		})
	}
	if keys := w.call(t, "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "s"}).keys(t); !slices.Equal(keys, []string{"there"}) {
		t.Errorf("afterwards the store has %.100q", keys)
	}
	w.wantValue(t, "there", "v")
}

func TestTheLongestOfEverythingIsAccepted(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	for _, key := range []string{strings.Repeat("k", 600), strings.Repeat("\U0010FFFF", 600), strings.Repeat("\n", 600)} {
		w.put(t, key, "v").wantDone(t)
		w.wantValue(t, key, "v")
		keys := w.call(t, "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "s", KeyPrefix: &key}).keys(t)
		if !slices.Equal(keys, []string{key}) {
			t.Errorf("%.10q is listed as %.50q", key, keys)
		}
	}
	for _, store := range []string{"", strings.Repeat("s", 120), strings.Repeat("\U0010FFFF", 120)} {
		w.call(t, "putObjects", &vsspb.PutObjectRequest{StoreId: store, TransactionItems: items(1)}).wantDone(t)
		w.call(t, "getObject", &vsspb.GetObjectRequest{StoreId: store, Key: "item0"}).wantValue(t, "v")
	}
	w.call(t, "putObjects", &vsspb.PutObjectRequest{StoreId: "many", TransactionItems: items(1000)}).wantDone(t)
	w.call(t, "putObjects", &vsspb.PutObjectRequest{StoreId: "many", DeleteItems: items(1000)}).wantDone(t)
}

func TestAPageHasAlwaysATokenAndTheFirstTheGlobalVersion(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	list := func(req *vsspb.ListKeyVersionsRequest) *vsspb.ListKeyVersionsResponse {
		t.Helper()
		req.StoreId = "s"
		var page vsspb.ListKeyVersionsResponse
		w.call(t, "listKeyVersions", req).wantOK(t, &page)
		if page.NextPageToken == nil {
			t.Error("a page has no next_page_token")
		}
		for _, kv := range page.GetKeyVersions() {
			if kv.Value != nil {
				t.Errorf("the list has a value: %v", kv)
			}
		}
		return &page
	}
	empty := list(&vsspb.ListKeyVersionsRequest{})
	if len(empty.GetKeyVersions()) != 0 || empty.GetNextPageToken() != "" || empty.GlobalVersion == nil || empty.GetGlobalVersion() != 0 {
		t.Errorf("an empty store lists as %v", empty)
	}

	const n = 250
	w.call(t, "putObjects", &vsspb.PutObjectRequest{StoreId: "s", GlobalVersion: ptr[int64](0), TransactionItems: items(n)}).wantDone(t)
	for _, size := range []*int32{nil, ptr[int32](0), ptr[int32](math.MaxInt32), ptr[int32](7), ptr[int32](125)} {
		var keys, tokens []string
		token := ""
		for first := true; first || token != ""; first = false {
			page := list(&vsspb.ListKeyVersionsRequest{PageSize: size, PageToken: &token}) // "" is the first page
			if got := page.GlobalVersion; (got != nil) != first || first && *got != 1 {
				t.Errorf("size %v, page %d: global version %v", size, len(tokens), got)
			}
			for _, kv := range page.GetKeyVersions() {
				keys = append(keys, kv.GetKey())
			}
			if len(page.GetKeyVersions()) == 0 || len(page.GetKeyVersions()) > 100 || size != nil && *size > 0 && len(page.GetKeyVersions()) > int(*size) {
				t.Errorf("size %v: a page of %d keys", size, len(page.GetKeyVersions()))
			}
			token = page.GetNextPageToken()
			tokens = append(tokens, token)
		}
		slices.Sort(keys)
		if keys = slices.Compact(keys); len(keys) != n {
			t.Errorf("size %v: %d of %d keys", size, len(keys), n)
		}
		// A token belongs to its store, prefix and wallet.
		for _, req := range []*vsspb.ListKeyVersionsRequest{
			{StoreId: "s", KeyPrefix: ptr("item"), PageToken: &tokens[0]},
			{StoreId: "t", PageToken: &tokens[0]},
			{StoreId: "s", PageToken: ptr(tokens[0] + "A")},
			{StoreId: "s", PageToken: ptr(tokens[0][1:])},
		} {
			w.call(t, "listKeyVersions", req).want(t, 400, invalid)
		}
		p.wallet(t, "acme", 2).call(t, "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "s", PageToken: &tokens[0]}).want(t, 400, invalid)
	}
}

func TestTheVersionsOfPutAndDeleteAreTheContracts(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	version := func(key string) int64 {
		t.Helper()
		var got vsspb.GetObjectResponse
		w.get(t, key).wantOK(t, &got)
		if got.GetValue().GetKey() != key {
			t.Errorf("key is %q", got.GetValue().GetKey())
		}
		return got.GetValue().GetVersion()
	}
	global := func(req *vsspb.PutObjectRequest, v int64) *vsspb.PutObjectRequest { req.GlobalVersion = &v; return req }
	if v := version("global_version"); v != 0 {
		t.Errorf("global version of a store never written is %d", v)
	}
	w.call(t, "putObjects", put(item("k", 0))).wantDone(t)
	w.call(t, "putObjects", put(item("k", 0))).want(t, 409, conflict)
	w.call(t, "putObjects", put(item("k", 1))).wantDone(t)
	w.call(t, "putObjects", put(item("k", 1), item("j", 0))).want(t, 409, conflict)
	w.get(t, "j").want(t, 404, noSuch)
	if v := version("k"); v != 2 {
		t.Errorf("version is %d", v)
	}
	w.call(t, "putObjects", put(item("k", -1))).wantDone(t)
	if v := version("k"); v != 1 {
		t.Errorf("after an unconditional write the version is %d", v)
	}
	w.call(t, "putObjects", global(put(item("k", -1)), 1)).want(t, 409, conflict)
	w.call(t, "putObjects", global(put(item("k", -1)), 0)).wantDone(t)
	w.call(t, "putObjects", global(put(), 1)).wantDone(t)
	if v := version("global_version"); v != 2 {
		t.Errorf("global version is %d", v)
	}
	w.call(t, "putObjects", global(put(), -1)).wantDone(t)
	if v := version("global_version"); v != 1 {
		t.Errorf("after an unconditional put the global version is %d", v)
	}
	w.call(t, "putObjects", &vsspb.PutObjectRequest{StoreId: "s", DeleteItems: []*vsspb.KeyValue{item("absent", -1)}}).want(t, 409, conflict)
	w.call(t, "deleteObject", &vsspb.DeleteObjectRequest{StoreId: "s", KeyValue: item("absent", -1)}).wantDone(t)
	w.call(t, "deleteObject", &vsspb.DeleteObjectRequest{StoreId: "s", KeyValue: item("k", 7)}).wantDone(t)
	w.wantValue(t, "k", "v")
	w.call(t, "deleteObject", &vsspb.DeleteObjectRequest{StoreId: "s", KeyValue: item("k", 1)}).wantDone(t)
	w.get(t, "k").want(t, 404, noSuch)
}

func TestProtobufThatIsMalformedIsInvalid(t *testing.T) {
	t.Parallel()
	p := start(t, over(always(func(context.Context) error { return nil })))
	w := p.wallet(t, "acme", 1)
	var deep, deeper []byte // groups in groups
	deep = append(bytes.Repeat([]byte{0x7b}, 9_000), bytes.Repeat([]byte{0x7c}, 9_000)...)
	deeper = append(bytes.Repeat([]byte{0x7b}, 20_000), bytes.Repeat([]byte{0x7c}, 20_000)...)
	for name, tc := range map[string]struct {
		tail   []byte // after a good message
		status int
	}{
		"unknown varint":                      {[]byte{0x78, 0x01}, 200},
		"unknown varint of 10 bytes":          {append([]byte{0x78}, protowire.AppendVarint(nil, math.MaxUint64)...), 200},
		"unknown varint of 10 bytes for zero": {append([]byte{0x78}, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00), 200},
		"unknown bytes":                       {[]byte{0x7a, 0x02, 0xff, 0x00}, 200},
		"unknown 64 bits":                     {[]byte{0x79, 1, 2, 3, 4, 5, 6, 7, 8}, 200},
		"unknown 32 bits":                     {[]byte{0x7d, 1, 2, 3, 4}, 200},
		"unknown group":                       {[]byte{0x7b, 0x78, 0x01, 0x7c}, 200},
		"empty unknown group":                 {[]byte{0x7b, 0x7c}, 200},
		"groups 9,000 deep":                   {deep, 200},
		"greatest field number":               {append(protowire.AppendTag(nil, protowire.MaxValidNumber, protowire.VarintType), 1), 200},

		"groups 20,000 deep":               {deeper, 400},
		"group that does not end":          {[]byte{0x7b, 0x78, 0x01}, 400},
		"group that ends as another":       {[]byte{0x7b, 0x74}, 400},
		"end of no group":                  {[]byte{0x7c}, 400},
		"varint of 11 bytes":               {append([]byte{0x78}, bytes.Repeat([]byte{0xff}, 11)...), 400},
		"varint over 64 bits":              {append([]byte{0x78}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02), 400},
		"varint cut off":                   {[]byte{0x78, 0x80}, 400},
		"tag alone":                        {[]byte{0x7a}, 400},
		"tag cut off":                      {[]byte{0xff}, 400},
		"tag of 11 bytes":                  {bytes.Repeat([]byte{0xff}, 11), 400},
		"field number 0":                   {[]byte{0x02, 0x00}, 400},
		"field number beyond the greatest": {append(protowire.AppendVarint(nil, uint64(protowire.MaxValidNumber+1)<<3), 0x01), 400},
		"wire type 6":                      {[]byte{0x7e, 0x00}, 400},
		"wire type 7":                      {[]byte{0x7f, 0x00}, 400},
		"length beyond the body":           {[]byte{0x7a, 0x05, 0x00}, 400},
		"length of 32 bits":                {[]byte{0x7a, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x00}, 400},
		"length of 64 bits":                {append([]byte{0x7a}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01), 400},
		"64 bits cut off":                  {[]byte{0x79, 1, 2, 3}, 400},
		"32 bits cut off":                  {[]byte{0x7d, 1, 2, 3}, 400},
		"store_id not UTF-8":               {[]byte{0x0a, 0x02, 0xc3, 0x28}, 400},
		"store_id a lone surrogate":        {[]byte{0x0a, 0x03, 0xed, 0xa0, 0x80}, 400},
		"store_id overlong":                {[]byte{0x0a, 0x02, 0xc0, 0x80}, 400},
		"store_id longer than the body":    {[]byte{0x0a, 0x7f, 'a'}, 400},
		"JSON":                             {[]byte(`{"store_id":"s"}`), 400},
	} {
		t.Run(name, func(t *testing.T) {
			for _, c := range calls {
				r := w.request(t, c.name, append(encode(t, c.body), tc.tail...))
				a := p.do(t, r)
				if a.status != tc.status {
					t.Errorf("%s: got HTTP %d %v, want %d", c.name, a.status, a.error(t), tc.status)
				}
				if tc.status == 400 {
					a.want(t, 400, invalid)
				}
			}
		})
	}
}

func TestABodyCutAnywhereIsMalformedOrAShorterMessage(t *testing.T) {
	t.Parallel()
	p := start(t, over(always(func(context.Context) error { return nil })))
	w := p.wallet(t, "acme", 1)
	for _, c := range calls {
		whole := encode(t, c.body)
		ends := map[int]bool{0: true} // where a field ends
		for rest := whole; len(rest) > 0; ends[len(whole)-len(rest)] = true {
			_, _, n := protowire.ConsumeField(rest)
			rest = rest[n:]
		}
		for n := range len(whole) + 1 {
			a := p.do(t, w.request(t, c.name, whole[:n]))
			if want := 400; !ends[n] && a.status != want || a.status != 200 && a.status != want {
				t.Errorf("%s, %d of %d bytes: HTTP %d", c.name, n, len(whole), a.status)
			}
		}
	}
}

func TestTextThatIsNotUTF8IsInvalid(t *testing.T) {
	t.Parallel()
	asked := false
	p := start(t, over(always(func(context.Context) error { asked = true; return nil })))
	w := p.wallet(t, "acme", 1)
	text := func(field protowire.Number, value string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, field, protowire.BytesType), value)
	}
	for _, broken := range []string{"\xff", "a\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc0\x80"} {
		inItem := string(append(text(1, broken), text(3, "v")...))
		for _, tc := range []struct {
			call string
			body []byte
		}{
			{"getObject", text(1, broken)},
			{"getObject", text(2, broken)},
			{"putObjects", text(1, broken)},
			{"putObjects", text(3, inItem)},
			{"putObjects", text(4, inItem)},
			{"deleteObject", text(1, broken)},
			{"deleteObject", text(2, inItem)},
			{"listKeyVersions", text(1, broken)},
			{"listKeyVersions", text(2, broken)},
			{"listKeyVersions", text(4, broken)},
		} {
			p.do(t, w.request(t, tc.call, tc.body)).want(t, 400, invalid)
		}
	}
	if asked {
		t.Error("the store was asked")
	}
	// Values are bytes.
	p.do(t, w.request(t, "putObjects", text(3, string(append(text(1, "k"), text(3, "\xff\x00")...))))).wantDone(t)
}

func TestFieldsThatAreUnknownOrRepeatedAreReadAsProtobufSays(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	field := func(number protowire.Number, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), value)
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	unknown := join(field(99, []byte("\xff")), []byte{0x78, 0x01}, []byte{0x7b, 0x78, 0x01, 0x7c})
	kv := join(unknown, field(1, []byte("k")), unknown, []byte{0x10},
		protowire.AppendVarint(nil, math.MaxUint64), // version -1, in ten bytes
		field(3, []byte("old")), unknown, field(3, []byte("v")))
	body := join(unknown, field(1, []byte("other")), field(3, kv), unknown, field(1, []byte("s")), unknown)
	p.do(t, w.request(t, "putObjects", body)).wantDone(t)
	w.wantValue(t, "k", "v")
	// A known field of another wire type is an unknown field: the store_id is empty here.
	p.do(t, w.request(t, "getObject", join([]byte{0x08, 0x01}, field(2, []byte("k"))))).want(t, 404, noSuch)
}

func TestEmptyBodies(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	for call, status := range map[string]int{
		"getObject":       400, // no key
		"putObjects":      400, // "saved" to what is left of a put that lost its body?
		"deleteObject":    400, // no key
		"listKeyVersions": 200, // of the store ""
	} {
		for name, request := range map[string]string{
			"Content-Length: 0":        w.head(t, call, "Content-Length: 0"),
			"no framing":               w.head(t, call),
			"chunked":                  w.head(t, call, "Transfer-Encoding: chunked") + "0\r\n\r\n",
			"Expect":                   w.head(t, call, "Content-Length: 0", "Expect: 100-continue"),
			"chunked, with an Expect":  w.head(t, call, "Transfer-Encoding: chunked", "Expect: 100-continue") + "0\r\n\r\n",
			"chunked, with extensions": w.head(t, call, "Transfer-Encoding: chunked") + "0;a=b\r\nTrailer: x\r\n\r\n",
		} {
			conn := p.dial(t)
			conn.send(t, request)
			if name == "chunked, with an Expect" {
				conn.wantContinue(t)
			}
			if a := conn.answer(t); a.status != status {
				t.Errorf("%s, %s: HTTP %d %v", call, name, a.status, a.error(t))
			}
			conn.wantOpen(t)
		}
	}
}

// wantContinue reads the server's leave to send the body.
func (w *wire) wantContinue(t testing.TB) {
	t.Helper()
	for _, want := range []string{"HTTP/1.1 100 Continue\r\n", "\r\n"} {
		if got, err := w.in.ReadString('\n'); err != nil || got != want {
			t.Fatalf("got %q, %v instead of leave to continue", got, err)
		}
	}
}

// chunked is the body in chunks of n bytes.
func chunked(body []byte, n int) string {
	var s strings.Builder
	for chunk := range slices.Chunk(body, n) {
		fmt.Fprintf(&s, "%x\r\n%s\r\n", len(chunk), chunk)
	}
	return s.String() + "0\r\n\r\n"
}

func TestChunkedBodies(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.create(t, "small")
	p.set(t, "small", limitedTo(10_000))
	w := p.wallet(t, "small", 1)
	value := strings.Repeat("v", 9_900)
	body := encode(t, put(&vsspb.KeyValue{Key: "k", Version: -1, Value: []byte(value)}))
	head := w.head(t, "putObjects", "Transfer-Encoding: chunked")

	t.Run("are taken however they are cut", func(t *testing.T) {
		for _, n := range []int{1, 7, 4096, 4097, len(body)} {
			conn := p.dial(t)
			conn.send(t, head+chunked(body, n))
			conn.answer(t).wantDone(t)
			conn.wantOpen(t)
			w.wantValue(t, "k", value)
		}
		conn := p.dial(t)
		conn.send(t, head+fmt.Sprintf("%06X;ext=\"a;b\"\r\n%s\r\n000\r\nTrailer: x\r\n\r\n", len(body), body))
		conn.answer(t).wantDone(t)
		conn.wantOpen(t)
	})
	t.Run("win over a Content-Length", func(t *testing.T) {
		conn := p.dial(t)
		conn.send(t, w.head(t, "putObjects", "Content-Length: 5", "Transfer-Encoding: chunked")+chunked(body, 1000))
		conn.answer(t).wantDone(t)
		conn.wantOpen(t)
	})
	t.Run("may be just as long as the limit", func(t *testing.T) {
		for extra, status := range map[int]int{0: 200, 1: 413} {
			exact := append(slices.Clone(body), protowire.AppendTag(nil, 99, protowire.BytesType)...)
			exact = protowire.AppendBytes(exact, make([]byte, 10_000-len(exact)-1+extra))
			if len(exact) != 10_000+extra {
				exact = append(exact[:len(body)], 0x9a, 0x06) // the length took a byte more
				exact = protowire.AppendBytes(exact, make([]byte, 10_000-len(body)-2-1+extra))
			}
			if len(exact) != 10_000+extra {
				t.Fatal("body of ", len(exact))
			}
			for name, request := range map[string]string{
				"chunked": head + chunked(exact, 999),
				"whole":   w.head(t, "putObjects", fmt.Sprint("Content-Length: ", len(exact))) + string(exact),
			} {
				conn := p.dial(t)
				conn.send(t, request)
				if a := conn.answer(t); a.status != status {
					t.Errorf("%s, %d bytes over the limit: HTTP %d", name, extra, a.status)
				}
				conn.wantOpen(t)
			}
		}
	})
	t.Run("with broken framing are malformed", func(t *testing.T) {
		for name, framing := range map[string]string{
			"no number":                  "zz\r\n",
			"more framing than body":     strings.Repeat("1;"+strings.Repeat("x", 100)+"\r\na\r\n", 200),
			"no size":                    "\r\nabc\r\n0\r\n\r\n",
			"a negative size":            "-1\r\n",
			"a size with 0x":             "0x5\r\nabcde\r\n0\r\n\r\n",
			"a size beyond 64 bits":      "fffffffffffffffff\r\n",
			"a size of 64 bits":          "ffffffffffffffff\r\nabc",
			"a chunk longer than it is":  "2\r\nabc\r\n0\r\n\r\n",
			"a chunk shorter than it is": "5\r\nabc\r\n0\r\n\r\n",
			"no end of a chunk":          "3\r\nabc0\r\n\r\n",
			"a bare line feed":           "3\nabc\n0\n\n",
			"a line without end":         strings.Repeat("1", 10_000),
			"endless extensions":         "1;" + strings.Repeat("x", 10_000) + "\r\na\r\n",
		} {
			conn := p.dial(t)
			conn.send(t, head+framing)
			_ = conn.Conn.(*net.TCPConn).CloseWrite()
			a := conn.answer(t)
			if a.status != 400 && a.status != 413 && a.status != 503 {
				t.Errorf("%s: HTTP %d", name, a.status)
			}
			if a.header.Get("Connection") != "close" {
				t.Errorf("%s: the connection goes on", name)
			}
			conn.wantClosed(t)
		}
	})
	w.wantValue(t, "k", value)
}

// vss-client looks for no answer before it has sent its body, so a refused one is read. But not for ever.
func TestABodyFarOverTheLimitIsReadUntilTheDeadline(t *testing.T) {
	t.Parallel()
	p := start(t, within(2*time.Second))
	p.set(t, "acme", limitedTo(10_000))
	w := p.wallet(t, "acme", 1)
	conn := p.dial(t)
	conn.send(t, w.head(t, "putObjects", "Transfer-Encoding: chunked"))
	chunk := "8000\r\n" + strings.Repeat("x", 0x8000) + "\r\n"
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for {
			if _, err := io.WriteString(conn.Conn, chunk); err != nil {
				return
			}
		}
	}()
	began := time.Now()
	time.Sleep(500 * time.Millisecond)
	eventually(t, "no memory is kept for it", func() bool { return p.inFlight(t) == 0 })
	if p.log.String() != "" {
		t.Error("but only when it was answered")
	}
	a := conn.answer(t)
	a.want(t, 413, invalid)
	if took := time.Since(began); took > 5*time.Second || a.header.Get("Connection") != "close" {
		t.Errorf("after %v, Connection: %s", took, a.header.Get("Connection"))
	}
	<-sent
}

func TestABodyShorterThanItsContentLengthChangesNothing(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	body := encode(t, put(item("k", -1)))
	for _, end := range []string{"half-closed", "reset"} {
		conn := p.dial(t)
		// What came is a whole message, were it not for the promise.
		conn.send(t, w.head(t, "putObjects", fmt.Sprint("Content-Length: ", len(body)+1))+string(body))
		tcp := conn.Conn.(*net.TCPConn)
		if end == "reset" {
			check(t, tcp.SetLinger(0))
			check(t, tcp.Close())
			eventually(t, "the call ends", func() bool { return strings.Contains(p.log.String(), `"call":"putObjects"`) })
			continue
		}
		check(t, tcp.CloseWrite())
		conn.answer(t).want(t, 400, invalid)
		conn.wantClosed(t)
	}
	w.get(t, "k").want(t, 404, noSuch)
}

func TestABodyThatIsNotAsLongAsPromisedOverHTTP2ChangesNothing(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	body := encode(t, put(item("k", -1)))
	send := func(promised string, sent []byte) (answer string) {
		c := p.dialHTTP2(t)
		c.request(t, sent == nil, [][2]string{
			{":method", "POST"}, {":scheme", "http"}, {":authority", "vss.example"}, {":path", w.base + "/putObjects"},
			{"authorization", w.token(t)}, {"content-length", promised},
		})
		if sent != nil {
			check(t, c.WriteData(1, true, sent))
		}
		return c.answer(t)
	}
	for name, tc := range map[string]struct {
		promised string
		sent     []byte
		answer   string
	}{
		// An empty body would be a put of nothing, and "done".
		"none at all":            {fmt.Sprint(len(body)), nil, "400 application/octet-stream "},
		"none at all, no number": {"x", nil, "400 application/octet-stream "},
		"shorter":                {fmt.Sprint(len(body) + 1), body, "400 application/octet-stream "},
		"longer":                 {fmt.Sprint(len(body) - 1), body, "RST_STREAM PROTOCOL_ERROR"},
	} {
		if got := send(tc.promised, tc.sent); !strings.HasPrefix(got, tc.answer) {
			t.Errorf("%s: got %q", name, got)
		}
	}
	w.get(t, "k").want(t, 404, noSuch)
	if got := send(fmt.Sprint(len(body)), body); got != "200 application/octet-stream " {
		t.Errorf("just as long: got %q", got)
	}
	w.wantValue(t, "k", "v")
}

func TestWhatComesAfterABodyIsAnotherRequest(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	conn := p.dial(t)
	conn.send(t, w.text(t, "putObjects", put(item("k", -1)))+"garbage\r\n\r\n")
	conn.answer(t).wantDone(t)
	if got := conn.rest(t); !strings.HasPrefix(got, "HTTP/1.1 400 Bad Request") {
		t.Errorf("got %q", got)
	}
}

func TestExpectContinueIsAnsweredBeforeTheBody(t *testing.T) {
	t.Parallel()
	p := start(t, func(cfg *api.Config) { cfg.Memory = 30_000 })
	p.create(t, "small")
	p.create(t, "closed")
	p.set(t, "small", limitedTo(1024))
	p.set(t, "closed", tenants.Change{State: ptr(tenants.Closed)})
	w := p.wallet(t, "acme", 1)
	body := encode(t, put(item("k", -1)))
	length := fmt.Sprint("Content-Length: ", len(body))

	for name, headers := range map[string][]string{
		"known length": {length, "Expect: 100-continue"},
		"any case":     {length, "Expect: 100-Continue"},
	} {
		conn := p.dial(t)
		conn.send(t, w.head(t, "putObjects", headers...))
		conn.wantContinue(t)
		conn.send(t, string(body))
		a := conn.answer(t)
		a.wantDone(t)
		if a.header.Get("Connection") != "keep-alive" {
			t.Errorf("%s: the connection is closed", name)
		}
		conn.wantOpen(t)
	}
	t.Run("chunked", func(t *testing.T) {
		conn := p.dial(t)
		conn.send(t, w.head(t, "putObjects", "Transfer-Encoding: chunked", "Expect: 100-continue"))
		conn.wantContinue(t)
		conn.send(t, chunked(body, 3))
		conn.answer(t).wantDone(t)
		conn.wantOpen(t)
	})
	t.Run("not waited for", func(t *testing.T) {
		conn := p.dial(t)
		conn.send(t, w.text(t, "putObjects", put(item("k", -1)), "Expect: 100-continue"))
		conn.wantContinue(t)
		conn.answer(t).wantDone(t)
		conn.wantOpen(t)
	})
	t.Run("HTTP/1.0 knows none", func(t *testing.T) {
		conn := p.dial(t)
		conn.send(t, strings.Replace(w.text(t, "putObjects", put(item("k", -1)), "Expect: 100-continue"), "HTTP/1.1", "HTTP/1.0", 1))
		conn.answer(t).wantDone(t)
		conn.wantClosed(t)
	})
	for name, tc := range map[string]struct {
		request string
		status  int
		code    vsspb.ErrorCode
	}{
		"no credential":  {w.head(t, "putObjects", length, "Expect: 100-continue", "Authorization:"), 401, noAuth},
		"bad credential": {w.head(t, "putObjects", length, "Expect: 100-continue", "Authorization: nonsense"), 401, noAuth},
		"unknown tenant": {p.wallet(t, "nobody", 1).head(t, "putObjects", length, "Expect: 100-continue"), 403, internal},
		"closed tenant":  {p.wallet(t, "closed", 1).head(t, "putObjects", length, "Expect: 100-continue"), 403, internal},
		"too large":      {p.wallet(t, "small", 1).head(t, "putObjects", "Content-Length: 1025", "Expect: 100-continue"), 413, invalid},
		"no memory":      {w.head(t, "putObjects", "Content-Length: 20000", "Expect: 100-continue"), 503, internal},
		"gzip":           {w.head(t, "putObjects", length, "Expect: 100-continue", "Content-Encoding: gzip"), 400, invalid},
		"unknown call":   {w.head(t, "putObject", length, "Expect: 100-continue"), 404, invalid},
	} {
		t.Run(name, func(t *testing.T) {
			conn := p.dial(t)
			conn.send(t, tc.request)
			began := time.Now()
			a := conn.answer(t) // and no leave before it
			a.want(t, tc.status, tc.code)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			if a.header.Get("Connection") != "close" {
				t.Error("the connection goes on, with a body that may or may not come")
			}
			check(t, conn.Conn.(*net.TCPConn).CloseWrite())
			conn.wantClosed(t)
		})
	}
}

func TestEncodedBodiesAreRefusedClearly(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(encode(t, put(item("k", -1))))
	check(t, z.Close())
	for _, encoding := range [][]string{{"gzip"}, {"br"}, {"x-gzip, deflate"}, {"identity", "gzip"}, {"GZIP"}} {
		r := w.request(t, "putObjects", zipped.Bytes())
		r.Header["Content-Encoding"] = encoding
		a := p.do(t, r)
		a.want(t, 400, invalid)
		if message := a.error(t).GetMessage(); !strings.Contains(message, "Content-Encoding") {
			t.Errorf("%q: message is %q", encoding, message)
		}
	}
	r := w.request(t, "putObjects", zipped.Bytes()) // not said
	p.do(t, r).want(t, 400, invalid)
	w.get(t, "k").want(t, 404, noSuch)
	for _, encoding := range []string{"identity", "Identity", ""} {
		r := w.request(t, "putObjects", encode(t, put(item("k", -1))))
		r.Header.Set("Content-Encoding", encoding)
		p.do(t, r).wantDone(t)
	}
	// Nor is an answer ever encoded.
	r = w.request(t, "getObject", encode(t, &vsspb.GetObjectRequest{StoreId: "s", Key: "k"}))
	r.Header.Set("Accept-Encoding", "gzip, br")
	a := p.do(t, r)
	a.wantValue(t, "v")
	if encoding := a.header.Get("Content-Encoding"); encoding != "" {
		t.Errorf("answered in %s", encoding)
	}
}

func TestCredentialsThatAreNoneOrMany(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	w.put(t, "k", "v").wantDone(t)
	token := w.token(t)
	body := encode(t, &vsspb.GetObjectRequest{StoreId: "s", Key: "k"})
	flipped := []byte(token)
	flipped[100] ^= 1
	for name, credentials := range map[string][]string{
		"none":             nil,
		"empty":            {""},
		"the same twice":   {token, token},
		"good, then bad":   {token, "x"},
		"bad, then good":   {"x", token},
		"empty, then good": {"", token},
		"in one header":    {token + ", " + token},
		"cut":              {token[:len(token)-1]},
		"without time":     {token[:66+128]},
		"flipped":          {string(flipped)},
		"Bearer":           {"Bearer " + token},
		"Basic":            {"Basic dXNlcjpwYXNz"},
		"quoted":           {`"` + token + `"`},
		"not ASCII":        {"\xff" + token[1:]},
		"10 KiB":           {strings.Repeat("0", 10<<10)},
		"10 KiB behind":    {token + strings.Repeat("0", 10<<10)},
		"60 KiB":           {strings.Repeat("a", 60<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			for _, c := range []*http.Client{p.http, p.http2} {
				r := w.request(t, "getObject", body)
				r.Header["Authorization"] = credentials
				p.doBy(t, c, r).want(t, 401, noAuth)
			}
		})
	}
	t.Run("of 1 MiB is net/http's to refuse", func(t *testing.T) {
		conn := p.dial(t)
		_, _ = io.WriteString(conn.Conn, w.head(t, "getObject", "Authorization: "+strings.Repeat("0", 1<<20)))
		if got := conn.rest(t); !strings.HasPrefix(got, "HTTP/1.1 431 ") {
			t.Errorf("got %.100q", got)
		}
	})
	t.Run("in capitals is the same wallet's", func(t *testing.T) {
		r := w.request(t, "getObject", body)
		r.Header.Set("Authorization", strings.ToUpper(token))
		p.do(t, r).wantValue(t, "v")
		r = w.request(t, "getObject", body)
		r.Header.Set("Authorization", strings.ToUpper(token[:33])+token[33:])
		p.do(t, r).wantValue(t, "v")
	})
	t.Run("with space around is taken as HTTP does", func(t *testing.T) {
		conn := p.dial(t)
		conn.send(t, w.text(t, "getObject", &vsspb.GetObjectRequest{StoreId: "s", Key: "k"}, "Authorization: \t "+token+" \t"))
		conn.answer(t).wantValue(t, "v")
	})
}

// A store that is asked must have been given what the request said, whatever the framing.
func TestTheStoreIsGivenWhatTheRequestSays(t *testing.T) {
	t.Parallel()
	var got storage.Batch
	var token string
	p := start(t, over(fake{
		put: func(_ context.Context, ks storage.Keyspace, b storage.Batch) error { got = b; return nil },
		list: func(_ context.Context, ks storage.Keyspace, req storage.ListRequest) (storage.Page, error) {
			token = fmt.Sprintf("%q %q %d %q", ks.StoreID(), req.Prefix, req.PageSize, req.Token)
			return storage.Page{}, nil
		},
	}))
	w := p.wallet(t, "acme", 1)
	w.call(t, "putObjects", &vsspb.PutObjectRequest{
		StoreId: "s", GlobalVersion: ptr[int64](3),
		TransactionItems: []*vsspb.KeyValue{{Key: "a", Version: 1, Value: []byte("A")}, {Key: "b", Version: -1}},
		DeleteItems:      []*vsspb.KeyValue{{Key: "c", Version: 2, Value: []byte("ignored")}},
	}).wantDone(t)
	if s := fmt.Sprintf("%d %v %v", *got.GlobalVersion, got.Writes, got.Deletes); s != "3 [{a 1 [65]} {b -1 []}] [{c 2}]" {
		t.Errorf("the store was given %s", s)
	}
	w.call(t, "putObjects", &vsspb.PutObjectRequest{GlobalVersion: ptr[int64](0)}).wantDone(t)
	if got.GlobalVersion == nil || *got.GlobalVersion != 0 {
		t.Errorf("the store was given %v", got)
	}
	w.call(t, "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "x", KeyPrefix: ptr("%_"), PageSize: ptr[int32](5), PageToken: ptr("T")}).wantOK(t, nil)
	if token != `"x" "%_" 5 "T"` {
		t.Errorf("the store was asked for %s", token)
	}
}
