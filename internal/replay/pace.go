package replay

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// pacer lets through so many events a second. It sleeps only when it is a
// millisecond ahead, because finer sleeps cost more than they give.
type pacer struct {
	perSecond int
	start     time.Time
	passed    int64
}

func newPacer(perSecond int) *pacer { return &pacer{perSecond: perSecond, start: time.Now()} }

// wait returns when the next event is due.
func (p *pacer) wait(ctx context.Context) error {
	if p.perSecond == 0 {
		return nil
	}
	due := p.start.Add(time.Duration(p.passed * int64(time.Second) / int64(p.perSecond)))
	p.passed++
	ahead := time.Until(due)
	if ahead < time.Millisecond {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(ahead):
		return nil
	}
}

// callLog remembers which methods were called.
type callLog struct {
	mu   sync.Mutex
	seen []string
}

func (l *callLog) add(method string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.seen, method) {
		l.seen = append(l.seen, method)
	}
}

func (l *callLog) names() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.seen)
}

func (l *callLog) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	l.add(info.FullMethod)
	return handler(ctx, request)
}

func (l *callLog) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	l.add(info.FullMethod)
	return handler(server, stream)
}
