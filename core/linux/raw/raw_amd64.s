#include "textflag.h"

#define SYS_prlimit64 302
#define SYS_clone3 435

// func getrlimit(resource uintptr, limit unsafe.Pointer) int
TEXT ·getrlimit(SB),NOSPLIT,$0-24
	MOVQ	$0, DI
	MOVQ	resource+0(FP), SI
	MOVQ	$0, DX
	MOVQ	limit+8(FP), R10
	MOVQ	$SYS_prlimit64, AX
	SYSCALL
	MOVQ	AX, ret+16(FP)
	RET

// func Clone3(args unsafe.Pointer, size uintptr) int
TEXT ·Clone3(SB),NOSPLIT|NOFRAME,$0-24
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	$SYS_clone3, AX
	POPQ	R12	// the child's calls overwrite this slot of the stack
	SYSCALL
	PUSHQ	R12
	MOVQ	AX, ret+16(FP)
	RET
