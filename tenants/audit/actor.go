package audit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Actor is who makes a change, as the audit log names it.
type Actor struct {
	Role Role
	Name string // within the role, as "root@host": 1 to 200 characters

	// Confirmed: the actor knows what the change does to others, and wants it.
	Confirmed bool
}

func (a Actor) String() string { return string(a.Role) + ":" + a.Name }

// Role decides what an actor may do.
type Role string

const (
	Operator Role = "operator" // somebody with access to the database: may do everything
	System   Role = "system"   // the platform by itself, as when it creates the demo tenant
)

// allowed are the actions of each role; nil: all. A role that is not here may do nothing.
var allowed = map[Role][]Action{
	Operator: nil,
	System:   {"tenant.create", "source.add"},
}

// ErrNoActor: it was not said, or not in a way that can be written down, who makes the change.
var ErrNoActor = errors.New("a change must say who makes it: an actor's role, and a name of 1 to 200 characters")

// ForbiddenError is a change that the actor's role may not make.
type ForbiddenError struct {
	Actor  Actor
	Action Action
}

func (e *ForbiddenError) Error() string {
	return fmt.Sprintf("%s may not do %s: its role does not allow it", e.Actor, e.Action)
}

// Authorize fails with [ErrNoActor] or a [*ForbiddenError] where the actor may not do this. [Change] asks it; whoever
// does costly work before a change asks it first.
func (a Actor) Authorize(action Action) error {
	actions, known := allowed[a.Role]
	if !known || !IsName(a.Name) {
		return ErrNoActor
	}
	if actions != nil && !slices.Contains(actions, action) {
		return &ForbiddenError{a, action}
	}
	return nil
}

// IsName says whether people can be shown s as a name: 1 to 200 characters, in UTF-8, none of them a control character.
func IsName(s string) bool {
	n := utf8.RuneCountInString(s)
	return n >= 1 && n <= 200 && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
