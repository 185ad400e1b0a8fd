package program

// claims says what is wanted for the keys of one table, and by whom. Several owners may
// want the same key: a pod may have an address that another node is said to
// have. The one that ranks highest has it; when it lets go, the next one does.
type claims[K comparable, V comparable] struct {
	held map[K][]claim[V]
	// was is what the table has for keys that may have changed since the table was
	// last brought to what is wanted.
	was map[K]maybe[V]
}

type claim[V comparable] struct {
	by    *owner
	value V
}

// maybe is a value that may not be there.
type maybe[V comparable] struct {
	value V
	there bool
}

func newClaims[K comparable, V comparable]() claims[K, V] {
	return claims[K, V]{held: map[K][]claim[V]{}, was: map[K]maybe[V]{}}
}

// get is what is wanted for a key.
func (c *claims[K, V]) get(k K) (got maybe[V]) {
	var best *owner
	for _, one := range c.held[k] {
		if best == nil || best.below(one.by) {
			best, got = one.by, maybe[V]{one.value, true}
		}
	}
	return got
}

// touch remembers what the table has before a key changes for the first time.
func (c *claims[K, V]) touch(k K) {
	if _, touched := c.was[k]; !touched {
		c.was[k] = c.get(k)
	}
}

// set notes what an owner wants for a key, in the place of what it wanted before.
func (c *claims[K, V]) set(k K, by *owner, v V) {
	c.touch(k)
	all := c.held[k]
	for i := range all {
		if all[i].by == by {
			all[i].value = v
			return
		}
	}
	c.held[k] = append(all, claim[V]{by, v})
}

// drop notes that an owner wants nothing for a key any more.
func (c *claims[K, V]) drop(k K, by *owner) {
	c.touch(k)
	all := c.held[k]
	for i := range all {
		if all[i].by != by {
			continue
		}
		if len(all) == 1 {
			delete(c.held, k)
			return
		}
		all[i] = all[len(all)-1]
		all[len(all)-1] = claim[V]{}
		c.held[k] = all[:len(all)-1]
		return
	}
}

// settle brings a table to what is wanted: all that is set first, then what is
// deleted. A key for which set fails is tried again the next time.
func (c *claims[K, V]) settle(set func(K, V) error, remove func(K)) (err error) {
	for k, was := range c.was {
		now := c.get(k)
		if !now.there {
			continue
		}
		if now != was {
			if failed := set(k, now.value); failed != nil {
				err = failed
				continue
			}
		}
		delete(c.was, k)
	}
	for k, was := range c.was {
		if c.get(k).there {
			continue
		}
		if was.there {
			remove(k)
		}
		delete(c.was, k)
	}
	return err
}

// audit compares what the table has with what is wanted, counts the differences and
// remembers the keys that settle is to mend.
func (c *claims[K, V]) audit(has map[K]V) (wrong int) {
	for k, v := range has {
		if is, want := (maybe[V]{v, true}), c.get(k); is != want {
			c.was[k] = is
			wrong++
		}
	}
	for k := range c.held {
		if _, there := has[k]; !there {
			c.was[k] = maybe[V]{}
			wrong++
		}
	}
	return wrong
}
