package client_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/vss-cloud/vss-cloud/api/client"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
)

func Example() {
	server := exampleServer()
	defer server.Close()

	auth, err := client.NewSignatureAuth([32]byte{31: 1}) // the wallet's secret key
	if err != nil {
		panic(err)
	}
	c, err := client.New(client.Config{BaseURL: server.URL + "/t/demo/vss", Auth: auth})
	if err != nil {
		panic(err)
	}
	defer c.CloseIdleConnections()

	ctx := context.Background()
	_, err = c.PutObjects(ctx, &vsspb.PutObjectRequest{
		StoreId:          "main",
		TransactionItems: []*vsspb.KeyValue{{Key: "greeting", Version: 0, Value: []byte("hello")}}, // 0: it must not exist
	})
	if err != nil {
		panic(err) // nothing is known to be saved
	}
	got, err := c.GetObject(ctx, &vsspb.GetObjectRequest{StoreId: "main", Key: "greeting"})
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s at version %d\n", got.GetValue().GetValue(), got.GetValue().GetVersion())

	_, err = c.GetObject(ctx, &vsspb.GetObjectRequest{StoreId: "main", Key: "farewell"})
	fmt.Println("never written:", errors.Is(err, client.ErrNoSuchKey))
	// Output:
	// hello at version 1
	// never written: true
}

func ExampleBearer() {
	server := exampleServer()
	defer server.Close()
	c, err := client.New(client.Config{
		BaseURL: server.URL + "/t/demo/vss",
		Auth:    client.Bearer("expired"),
		Retry:   client.Retry{FailFast: true}, // a bad token is told at once
	})
	if err != nil {
		panic(err)
	}
	defer c.CloseIdleConnections()
	_, err = c.GetObject(context.Background(), &vsspb.GetObjectRequest{Key: "greeting"})
	fmt.Println(errors.Is(err, client.ErrAuth))
	// Output: true
}

func ExampleBearerFunc() {
	server := exampleServer()
	defer server.Close()
	session := func(context.Context) (string, error) { return "token of the app's own server", nil }
	c, err := client.New(client.Config{
		BaseURL: server.URL + "/t/demo/vss",
		Auth: client.BearerFunc(func(ctx context.Context) (string, error) {
			token, err := session(ctx) // kept there until it is about to end
			return strings.ReplaceAll(token, " ", "-"), err
		}),
	})
	if err != nil {
		panic(err)
	}
	defer c.CloseIdleConnections()
	all, err := c.ListAll(context.Background(), &vsspb.ListKeyVersionsRequest{StoreId: "main"})
	fmt.Println(len(all.GetKeyVersions()), "keys", err)
	// Output: 0 keys <nil>
}

func ExampleNewLNURLAuth() {
	server := exampleServer()
	defer server.Close()
	auth, err := client.NewLNURLAuth(client.LNURLConfig{
		URL: server.URL + "/t/demo/lnurl/auth",
		Key: client.LUD05([]byte("the seed of the wallet, 32 bytes")),
	})
	if err != nil {
		panic(err)
	}
	defer auth.CloseIdleConnections()
	c, err := client.New(client.Config{BaseURL: server.URL + "/t/demo/vss", Auth: auth})
	if err != nil {
		panic(err)
	}
	defer c.CloseIdleConnections()
	_, err = c.PutObjects(context.Background(), &vsspb.PutObjectRequest{
		TransactionItems: []*vsspb.KeyValue{{Key: "greeting", Version: -1, Value: []byte("hello")}}, // -1: whatever is there
	})
	fmt.Println(err)
	// Output: <nil>
}

// exampleServer is a small server with one store, for the examples.
func exampleServer() *httptest.Server {
	var mu sync.Mutex
	values := map[string]*vsspb.KeyValue{}
	token := "e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"exp":4102444800}`)) + ".c2ln"
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasSuffix(r.URL.Path, "/lnurl/auth") {
			if r.URL.Query().Get("sig") == "" {
				fmt.Fprintf(w, "http://%s%s?tag=login&k1=%064x", r.Host, r.URL.Path, 1)
			} else {
				fmt.Fprintf(w, `{"status":"OK","token":%q}`, token)
			}
			return
		}
		body, _ := io.ReadAll(r.Body)
		answer := func(status int, m proto.Message) {
			text, _ := proto.Marshal(m)
			w.Header().Set("vss-protocol-version", "0")
			w.WriteHeader(status)
			_, _ = w.Write(text)
		}
		if r.Header.Get("Authorization") == "Bearer expired" {
			answer(http.StatusUnauthorized, &vsspb.ErrorResponse{ErrorCode: vsspb.ErrorCode_AUTH_EXCEPTION, Message: "the token has expired"})
			return
		}
		switch path.Base(r.URL.Path) {
		case "putObjects":
			var put vsspb.PutObjectRequest
			_ = proto.Unmarshal(body, &put)
			for _, item := range put.GetTransactionItems() {
				values[item.GetKey()] = &vsspb.KeyValue{Key: item.GetKey(), Version: 1, Value: item.GetValue()}
			}
			answer(http.StatusOK, &vsspb.PutObjectResponse{})
		case "getObject":
			var get vsspb.GetObjectRequest
			_ = proto.Unmarshal(body, &get)
			if v := values[get.GetKey()]; v != nil {
				answer(http.StatusOK, &vsspb.GetObjectResponse{Value: v})
			} else {
				answer(http.StatusNotFound, &vsspb.ErrorResponse{ErrorCode: vsspb.ErrorCode_NO_SUCH_KEY_EXCEPTION})
			}
		default:
			answer(http.StatusOK, &vsspb.ListKeyVersionsResponse{NextPageToken: proto.String("")})
		}
	}))
}
