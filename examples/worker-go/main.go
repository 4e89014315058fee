// The stock Go worker for one session: serves the work item in the environment variables, then exits.
// It reads ANTHROPIC_WORK_ID, ANTHROPIC_ENVIRONMENT_ID, ANTHROPIC_SESSION_ID, ANTHROPIC_WORK_SECRET (or
// ANTHROPIC_ENVIRONMENT_KEY) and ANTHROPIC_BASE_URL, as the SDK does. Optional:
// - WORKSPACE: the working directory; default: the current one
// - BERTH_WORKER_MAX_IDLE_MS: how long it keeps an idle session; default: 60000
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/anthropics/anthropic-sdk-go/v2"
	"github.com/anthropics/anthropic-sdk-go/v2/lib/environments"
	"github.com/anthropics/anthropic-sdk-go/v2/option"
)

func main() {
	log.SetFlags(0)
	// Without this, SIGTERM would end the process at once. With it, the worker drains, sends its stop and returns.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serve(ctx); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

func serve(ctx context.Context) error {
	options := environments.EnvironmentWorkerOptions{Workdir: os.Getenv("WORKSPACE")}
	if text := os.Getenv("BERTH_WORKER_MAX_IDLE_MS"); text != "" {
		ms, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return fmt.Errorf("BERTH_WORKER_MAX_IDLE_MS must be a whole number, 0 or more: %w", err)
		}
		maxIdle := time.Duration(ms) * time.Millisecond
		options.MaxIdle = &maxIdle
	}
	// The client requires a credential; the worker replaces it with the item's in every call.
	client := anthropic.NewClient(option.WithAuthToken("unused"))
	return environments.NewEnvironmentWorker(client, options).HandleItem(ctx, environments.HandleItemOptions{})
}
