package storagetest

import (
	"testing"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/storage"
)

func testIsolation(t *testing.T, s *suite) {
	type address struct {
		tenant             uuid.UUID
		namespace, subject string
		storeID            string
	}
	acme, other := uuid.New(), uuid.New()
	// Neighbours that differ in one part, or only in where the parts are cut.
	actors := map[string]address{
		"alice":                        {acme, "sig", "alice", "s"},
		"alice's second store":         {acme, "sig", "alice", "t"},
		"alice's store without a name": {acme, "sig", "alice", ""},
		"alice's store in capitals":    {acme, "sig", "alice", "S"},
		"bob":                          {acme, "sig", "bob", "s"},
		"alice by another scheme":      {acme, "jwt:main", "alice", "s"},
		"alice of another tenant":      {other, "sig", "alice", "s"},
		"cut one to the left":          {acme, "si", "galice", "s"},
		"cut one to the right":         {acme, "siga", "lice", "s"},
		"store id cut":                 {acme, "sig", "alices", ""},
		"alice in capitals":            {acme, "sig", "Alice", "s"},
		"alice and a blank":            {acme, "sig", "alice ", "s"},
	}
	enter := func(c client, a address) client {
		return c.in(keyspaceOf(c.t, storage.Owner{Tenant: a.tenant, Namespace: a.namespace, Subject: a.subject}, a.storeID))
	}

	t.Run("nothing crosses from one store, wallet, scheme or tenant to another", func(t *testing.T) {
		c := client{t: t, place: s.shared}
		for name, who := range actors {
			me := enter(c, who)
			me.wantVersion("k", 0) // whatever the ones before me did
			me.wantKeys("")
			me.wantGlobal(0)
			me.wantDelete("k", -1)
			me.wantPut(nil, storage.Batch{GlobalVersion: at(0), Writes: []storage.Object{
				{Key: "k", Version: 0, Value: []byte(name)}, {Key: "to delete", Version: 0}}})
		}
		for name, who := range actors {
			me := enter(c, who).via(1)
			me.wantObject("k", 1, []byte(name))
			me.wantKeys("", "to delete", "k")
			me.wantGlobal(1)
			if n := me.wantCounted(); n.Objects != 2 {
				t.Fatalf("%s has %d objects, want 2", name, n.Objects)
			}
			me.wantDelete("to delete", -1)
			me.wantPut(nil, storage.Batch{GlobalVersion: at(1), Deletes: []storage.KeyVersion{item("k", 1)}})
		}
		for _, who := range actors {
			me := enter(c, who)
			me.wantKeys("")
			me.wantGlobal(2)
		}
	})

	s.alone(t, "a writer of one store shuts out none of another", func(t *testing.T, c client) {
		alice := enter(c, actors["alice"])
		alice.write("k")
		defer alice.hold()()
		for name, who := range actors {
			if name != "alice" {
				me := enter(c, who)
				me.write("k", "x") // its first write
				me.wantDelete("x", 1)
				me.wantPut(nil, writes(object("k", 1)))
				me.wantVersion("k", 2)
			}
		}
	})
}
