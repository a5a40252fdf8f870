/* publish.pml: the protocol of `gloci-layout publish`, to be checked by spin.
 *
 * Many machines publish flavours of one version to one repository. There is no
 * lock, and no PUT is conditional. What a registry has is modelled as registers:
 *
 *   tag[k]   what the tag of flavour k names: 0 nothing, 1 or 2 a manifest,
 *            3 the manifest that says "removed"
 *   idx[k]   what the index under the version's tag holds for flavour k
 *   ali[k]   the same for an alias tag, such as latest
 *
 * Slot N belongs to a program that knows nothing of all this, such as podman.
 * Each step of a process is one request. Reading a tag, reading the index and
 * writing either is one request each; a list of tags is one request a tag.
 * Content is not modelled: it goes first, by digest, and never changes.
 *
 * scripts/model.sh has the list of cases, with what must come out, and runs them
 * with every interleaving. By hand, one case:
 *
 *   spin -a -DN=2 -DCRASH=1 -DHEAL docs/publish.pml
 *   cc -O2 -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan
 *   spin -t -p -g -DN=2 ... docs/publish.pml      shows the trail of a failure
 *
 * What happens:
 *   N=n          publishers, 2 to 4
 *   CRASH=n      up to n of them end between any two requests
 *   HEAL         one more pass once all is quiet: publish --reindex
 *   REMOVE       somebody removes flavour 0, the right way (tombstone)
 *   DELETE       somebody deletes the tag of flavour 0
 *   SAME         publishers 0 and 1 have the same flavour, with other content
 *   PODMAN       a program PUTs an index of its own entry alone, at any time
 *   PODTAG       ... which it has tagged before
 *   EARLY        ... before the first publisher begins
 *   LAG          the list of tags is old, by any amount
 *   ZOMBIE=n     n PUTs of the index get no answer, and land later or never
 *   TAGZOMBIE=n  the same for PUTs of flavour tags
 *   FAIL         one publisher fails after its tag has moved, and rolls back
 *   ALIAS        there is an alias tag, too
 *
 * What the protocol has (each of them undone is a mutant that must fail):
 *   NOREREAD     nothing is read again after a PUT
 *   TAGLATE      the flavour tag moves after the index
 *   LISTFIRST    tags are listed before the index is read
 *   NOLOOK       the tag that a foreign entry would have is not looked up
 *   NOADOPT      untagged foreign entries are overwritten without a look
 *   NOLAGWAIT    with LAG: no waiting before the list is read again
 *   NOWAIT       no waiting after a PUT without an answer
 *   PUTBACK      with FAIL: the rollback PUTs back the index that was read first
 *   NOTOMB       with FAIL: the rollback leaves its own tag as it is
 *   NOALIAS      the alias tag is written once and not read again
 *
 * What is asserted beyond that the index, at rest, is what the tags say:
 *   ALWAYS       ... even after a crash that nobody has healed
 *   STEADY       an entry of a publisher that has ended never goes away again
 *   GONE         what was removed or deleted is not in the index
 *   KEPT         podman's entry is in the index, if podman has written it
 *   ROUNDS=n     nobody reads the index more than n times
 */
#ifndef N
#define N 2
#endif
#ifndef CRASH
#define CRASH 0
#endif
#ifndef ZOMBIE
#define ZOMBIE 0
#endif
#ifndef TAGZOMBIE
#define TAGZOMBIE 0
#endif

#define X       N           /* the slot of podman */
#define SLOTS   (N+1)
#define REMOVER N           /* numbers of processes that are no publishers */
#define HEALER  (N+1)
#define LIVE(v) ((v) == 3 -> 0 : (v))

#ifdef SAME
#define SLOT(p)  ((p) < 2 -> 0 : (p))
#define VALUE(p) ((p) == 1 -> 2 : 1)
#else
#define SLOT(p)  (p)
#define VALUE(p) 1
#endif

byte tag[SLOTS];
byte listed[SLOTS];         /* what the list says; with LAG not always tag */
byte idx[SLOTS];
byte ali[SLOTS];
byte running, crashes, zombies, tagzombies, failures;
bool podPut;                /* podman has written its index */
bool gone;                  /* flavour 0 was removed, and not published again */
bool ended[N];              /* this publisher has reported success */
byte pending[N];            /* a PUT without an answer: 0 none, 1 index, 2 tag */
typedef entries { byte e[SLOTS] };
entries held[N];            /* what that PUT would write */

/* A process may end before each of its requests. */
#if CRASH > 0
#define MORTAL if :: true :: (mortal && crashes < CRASH) -> crashes++; goto dead fi
#else
#define MORTAL skip
#endif

#define AGAIN if :: (slot == 0) -> gone = false :: else fi

#define STRANGER(k) (I[k] != 0 && T[k] == 0)

#ifdef LAG
#define SEEN(k) ((k == slot && wrote) -> tag[k] : listed[k])
#define WRITETAG(k, v) tag[k] = v
#else
#define SEEN(k) tag[k]
#define WRITETAG(k, v) tag[k] = v; listed[k] = v
#endif

#if N > 3
#define CAUGHTUP (listed[0] == tag[0] && listed[1] == tag[1] && listed[2] == tag[2] && listed[3] == tag[3])
#define LANDED   (pending[0] + pending[1] + pending[2] + pending[3] == 0)
#elif N > 2
#define CAUGHTUP (listed[0] == tag[0] && listed[1] == tag[1] && listed[2] == tag[2])
#define LANDED   (pending[0] + pending[1] + pending[2] == 0)
#else
#define CAUGHTUP (listed[0] == tag[0] && listed[1] == tag[1])
#define LANDED   (pending[0] + pending[1] == 0)
#endif

#ifdef ALIAS
#define READALIAS A[k] = ali[k]
#else
#define READALIAS skip
#endif

/* the index, as one request */
inline readIndex() {
	atomic { MORTAL; d_step { for (k : 0 .. N) { I[k] = idx[k]; READALIAS }; k = 0 } }
}

/* the tags, each with a request of its own */
inline readTags() {
	do
	:: atomic { k < SLOTS -> T[k] = SEEN(k); k++ }
	:: atomic { k == SLOTS -> k = 0; break }
	od
}

inline putIndex() {
	d_step {
		for (k : 0 .. N) {
#ifdef STEADY
			assert(!(k < N && ended[k] && idx[k] != 0 && T[k] == 0));
#endif
			idx[k] = LIVE(T[k])
		};
		k = 0
	}
}

/* a publisher (p < N), somebody who removes flavour 0, or a pass that heals */
proctype Process(byte p; bool mortal) {
	byte I[SLOTS];          /* the index as read */
	byte A[SLOTS];          /* the alias as read */
	byte T[SLOTS];          /* the tags as read: W, what the index is to be, is LIVE of it */
	byte k, slot, mine, rounds;
	bool wrote, equal, failed;
#ifdef PUTBACK
	byte B[SLOTS];          /* the index at the beginning */
#endif

	d_step {
		slot = (p < N -> SLOT(p) : 0);
		mine = (p < N -> VALUE(p) : 3)
	};
#ifdef PUTBACK
	d_step { for (k : 0 .. N) { B[k] = idx[k] }; k = 0 };
#endif

	/* 1. the own tag */
	if
	:: p == HEALER
#ifdef TAGLATE
	:: p < N
#else
	:: atomic { p < N -> MORTAL; WRITETAG(slot, mine); wrote = true; AGAIN }
#endif
#if TAGZOMBIE > 0
	:: atomic { (p < N && tagzombies < TAGZOMBIE) -> tagzombies++; pending[p] = 2 };
#ifndef NOWAIT
	   pending[p] == 0;     /* it has landed, or never will */
#endif
	   if
	   :: atomic { tag[slot] == mine -> wrote = true }
	   :: atomic { tag[slot] != mine -> MORTAL; WRITETAG(slot, mine); wrote = true; AGAIN }
	   fi
#endif
#ifdef REMOVE
	:: atomic { p == REMOVER -> gone = (tag[0] != 0); WRITETAG(0, 3); wrote = true }
#endif
#ifdef DELETE
	:: atomic { p == REMOVER -> gone = (tag[0] != 0); WRITETAG(0, 0); wrote = true }
	:: p == REMOVER -> goto out
#endif
	fi;

#if defined(LAG) && !defined(NOLAGWAIT)
	if
	:: p == HEALER -> CAUGHTUP  /* what others have tagged before it began must be seen */
	:: else
	fi;
#endif

	/* 2. until the index is what the tags say */
again:
#ifdef ROUNDS
	skip;
	d_step { rounds++; assert(rounds <= ROUNDS) };
#endif
#ifdef LISTFIRST
	readTags();
	readIndex();
#else
	readIndex();
	readTags();
#endif
#ifdef TAGLATE
	if :: (p < N && !wrote) -> T[slot] = mine :: else fi;
#endif
#ifndef NOADOPT
	/* What the index holds and no listed tag names: the tag that the entry
	 * itself asks for is looked up; if there is none, the entry gets one. The
	 * index was read first, so nobody who plays is taken for a stranger. */
	do
	:: atomic { STRANGER(k) ->
#ifndef NOLOOK
		T[k] = tag[k]
#else
		skip
#endif
		};
		atomic {
			if
			:: (T[k] == 0) ->
#ifndef DELETE
				assert(k == X);
#endif
				MORTAL; WRITETAG(k, I[k]); T[k] = I[k]
			:: else
			fi
		}
	:: atomic { !STRANGER(k) && k < X -> k++ }
	:: atomic { !STRANGER(k) && k == X -> k = 0; break }
	od;
#endif
#ifdef FAIL
	/* something fails here, or somebody presses Ctrl-C */
	if
	:: true
	:: atomic { (p < N && failures < 1 && !failed) -> failures++; failed = true };
#ifdef PUTBACK
		atomic { WRITETAG(slot, 3) };
		d_step { for (k : 0 .. N) { idx[k] = B[k]; B[k] = 0 }; k = 0 };
		goto out
#elif defined(NOTOMB)
		goto out
#else
		atomic {
			if
			:: (tag[slot] == mine) -> WRITETAG(slot, 3)  /* only what is still ours */
			:: else
			fi;
			mine = 3
		};
		goto again
#endif
	fi;
#endif
	atomic {
		d_step {
			equal = true;
			for (k : 0 .. N) {
				if :: (I[k] != LIVE(T[k])) -> equal = false :: else fi;
#if defined(ALIAS) && !defined(NOALIAS)
				if :: (A[k] != LIVE(T[k])) -> equal = false :: else fi
#endif
			};
			for (k : 0 .. N) { I[k] = 0; A[k] = 0 };
			k = 0
		};
		if
		:: equal -> goto done
		:: else
		fi
	};
	if
	:: atomic { MORTAL; putIndex() }
#if ZOMBIE > 0
	:: atomic { (p < N && zombies < ZOMBIE && pending[p] == 0) -> zombies++; pending[p] = 1;
		d_step { for (k : 0 .. N) { held[p].e[k] = LIVE(T[k]) }; k = 0 } };
#ifndef NOWAIT
		pending[p] == 0     /* it has landed, or never will */
#endif
#endif
	fi;
#ifdef ALIAS
	atomic { MORTAL; d_step { for (k : 0 .. N) { ali[k] = LIVE(T[k]) }; k = 0 } };
#endif
	d_step { for (k : 0 .. N) { T[k] = 0 }; k = 0; equal = 0 };
#ifdef NOREREAD
	goto done;
#endif
#if defined(LAG) && !defined(NOLAGWAIT)
	CAUGHTUP;               /* the list has been right once since the PUT */
#endif
	goto again;

done:
#ifdef TAGLATE
	if
	:: atomic { p < N -> MORTAL; WRITETAG(slot, mine); wrote = true }
	:: p >= N
	fi;
#endif
	if :: (p < N && !failed) -> ended[slot] = true :: else fi;
out:
dead:
	skip;
	d_step {
		running--;
		for (k : 0 .. N) { I[k] = 0; A[k] = 0; T[k] = 0 };
		k = 0; equal = 0; wrote = 0; mine = 0; rounds = 0
	}
}

#ifdef PODMAN
proctype Podman() {
	byte k;
#ifdef PODTAG
	atomic { WRITETAG(X, 1) };
#endif
	d_step { for (k : 0 .. N) { idx[k] = (k == X -> 1 : 0) }; k = 0; podPut = true };
	running--
}
#endif

#ifdef LAG
proctype Lag() {                /* the list becomes right, one tag after another */
end:
	do
	:: d_step { listed[0] != tag[0] -> listed[0] = tag[0] }
	:: d_step { listed[1] != tag[1] -> listed[1] = tag[1] }
#if N > 2
	:: d_step { listed[2] != tag[2] -> listed[2] = tag[2] }
#endif
#if N > 3
	:: d_step { listed[3] != tag[3] -> listed[3] = tag[3] }
#endif
	od
}
#endif

#if ZOMBIE + TAGZOMBIE > 0
proctype Late(byte p) {         /* a PUT without an answer lands, or never does */
	byte k;
end:
	do
	:: atomic { pending[p] == 1 -> d_step { for (k : 0 .. N) { idx[k] = held[p].e[k]; held[p].e[k] = 0 }; k = 0 }; pending[p] = 0 }
	:: atomic { pending[p] == 1 -> d_step { for (k : 0 .. N) { held[p].e[k] = 0 }; k = 0 }; pending[p] = 0 }
	:: atomic { pending[p] == 2 -> WRITETAG(SLOT(p), VALUE(p)); pending[p] = 0; if :: (SLOT(p) == 0) -> gone = false :: else fi }
	:: atomic { pending[p] == 2 -> pending[p] = 0 }
	od
}
#endif

init {
	byte q;
	atomic {
		running = N;
#ifdef EARLY
		d_step { idx[X] = 1; podPut = true };
#endif
		for (q : 0 .. N-1) { run Process(q, true) };
#if defined(REMOVE) || defined(DELETE)
		running++; run Process(REMOVER, false);
#endif
#if defined(PODMAN) && !defined(EARLY)
		running++; run Podman();
#endif
#ifdef LAG
		run Lag();
#endif
#if ZOMBIE + TAGZOMBIE > 0
		for (q : 0 .. N-1) { run Late(q) };
#endif
		q = 0
	}
	/* All have ended, and no PUT is on its way. */
	atomic {
		(running == 0 && LANDED) -> skip
#ifdef HEAL
		; running = 1; run Process(HEALER, false)
	}
	atomic {
		running == 0
#endif
#if CRASH > 0 && !defined(HEAL) && !defined(ALWAYS)
		; if :: (crashes == 0) :: else -> goto over fi
#endif
		;
		for (q : 0 .. N-1) {
			assert(idx[q] == LIVE(tag[q]));
#ifdef ALIAS
			assert(ali[q] == LIVE(tag[q]));
#endif
		};
#ifdef GONE
		assert(!gone || idx[0] == 0);
#endif
#ifdef KEPT
		assert(!podPut || idx[X] == 1);
#endif
		skip
	}
over:	skip
}
