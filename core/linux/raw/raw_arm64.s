#include "textflag.h"

#define SYS_prlimit64 261
#define SYS_clone3 435

// func getrlimit(resource uintptr, limit unsafe.Pointer) int
TEXT ·getrlimit(SB),NOSPLIT,$0-24
	MOVD	$0, R0
	MOVD	resource+0(FP), R1
	MOVD	$0, R2
	MOVD	limit+8(FP), R3
	MOVD	$SYS_prlimit64, R8
	SVC
	MOVD	R0, ret+16(FP)
	RET

// func Clone3(args unsafe.Pointer, size uintptr) int
// The return address is in the link register; a leaf without a frame never stores it.
TEXT ·Clone3(SB),NOSPLIT|NOFRAME,$0-24
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	$SYS_clone3, R8
	SVC
	MOVD	R0, ret+16(FP)
	RET
