package platform

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
)

// ErrNoPrevious: there is no git, or no commit before this one.
var ErrNoPrevious = errors.New("no commit before")

// BuildPrevious builds the API's binary of the commit before the one that is checked out at root. dir is for its
// sources. It changes nothing in the repository.
func BuildPrevious(ctx context.Context, root, dir, binary string) error {
	// The clone may be another user's.
	git := func(args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, "git", append([]string{"-c", "safe.directory=*", "-C", root}, args...)...)
	}
	if err := git("rev-parse", "--quiet", "--verify", "HEAD~1").Run(); err != nil {
		return ErrNoPrevious
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	archive := filepath.Join(dir, "sources.tar")
	if err := git("archive", "--output", archive, "HEAD~1").Run(); err != nil {
		return err
	}
	if err := exec.CommandContext(ctx, "tar", "-xf", archive, "-C", dir).Run(); err != nil {
		return err
	}
	return Build(ctx, dir, binary, false)
}
